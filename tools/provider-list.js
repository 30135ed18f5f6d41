// Search and filters of the list of providers. Without this script the list is whole, and the form stays hidden.
"use strict";
(() => {
  const form = document.querySelector("form.providers");
  const rows = [...document.querySelectorAll("table.providers tbody tr")];
  const fields = ["q", "family", "evidence", "resends", "handshake"];

  const show = () => {
    const asked = Object.fromEntries(new FormData(form));
    const words = asked.q.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const data = row.dataset;
      row.hidden = !(words.every((word) => data.words.includes(word)) &&
        fields.slice(1).every((name) => !asked[name] || data[name].split(" ").includes(asked[name])));
      shown += row.hidden ? 0 : 1;
    }
    form.querySelector("[role=status]").textContent = shown ? `${shown} of ${rows.length}` : "No provider fits. Clear a filter.";
    return asked;
  };

  // The address says what is asked for, so that it can be sent to somebody. A file on disk has no such address.
  const remember = () => {
    const asked = new URLSearchParams(Object.entries(show()).filter(([, value]) => value)).toString();
    try {
      history.replaceState(null, "", asked ? `?${asked}` : location.pathname);
    } catch { /* the list works without */ }
  };

  const given = new URLSearchParams(location.search);
  for (const name of fields) {
    form.elements[name].value = given.get(name) ?? "";
    if (form.elements[name].selectedIndex === -1) form.elements[name].value = "";
  }
  form.addEventListener("input", remember);
  form.addEventListener("reset", () => setTimeout(remember));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  show();
})();
