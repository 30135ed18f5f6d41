// Replaces parts of the page when the server reports changes. Without this script the page is complete but static.
"use strict";

const live = document.getElementById("live");
const frozen = live.innerHTML;
let version = document.body.dataset.version;
let source = null;
let retry = 0;

function listen() {
  clearTimeout(retry);
  if (source || document.hidden) return;
  source = new EventSource("/-/events?since=" + version);
  source.onopen = () => { live.textContent = "Live"; live.className = "good"; };
  source.onmessage = (event) => {
    version = event.lastEventId;
    for (const [part, html] of Object.entries(JSON.parse(event.data))) {
      const element = document.getElementById(part);
      if (element) element.innerHTML = html; // escaped by the server, like the page itself
    }
  };
  source.onerror = () => {
    stop();
    retry = setTimeout(listen, 3000);
  };
}

function stop() {
  if (source) source.close();
  source = null;
  live.innerHTML = frozen;
  live.className = "";
}

// A hidden page must not take the place of a listener.
document.addEventListener("visibilitychange", () => (document.hidden ? stop() : listen()));
listen();
