"""docs/quick-start.md does what it says: its commands are run, in its order, on other ports."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from needs import needs
from pages import ROOT, fences, read
from ports import free_ports
from walking import answer, environment, running

PAGE = {fence.mark: fence.text for fence in fences(read("docs/quick-start.md"))}


def test_the_walk_leads_to_a_protected_receiver_and_a_graph(tmp_path: Path) -> None:
    needs("curl")
    needs("prometheus")
    ports = dict(zip(("3000", "8080", "9090", "9091"), free_ports(4)))

    def here(text: str) -> str:
        text = re.sub(r"\b(3000|8080|9090|9091)\b", lambda match: str(ports[match[1]]), text)
        return text.replace("/tmp/quick-start", str(tmp_path / "data"))

    def lines(mark: str) -> list[str]:
        return re.findall(r"^\$ (.*?)(?: +#.*)?$", here(PAGE[f"run: {mark}"]), re.M)

    for folder in ("config/quick-start", "helm/rules"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for file in (tmp_path / "config/quick-start").iterdir():
        file.write_text(here(file.read_text()).replace("scrape_interval: 5s", "scrape_interval: 200ms"))

    exported, check, serve = lines("sidecar")
    assert exported == "export GITHUB_SECRET=it-is-a-secret-to-everybody"
    subprocess.run(["bash", "-c", check], cwd=tmp_path, env=environment(), check=True, stdout=subprocess.DEVNULL)
    prometheus = f"{lines('prometheus')[0]} --scrape.discovery-reload-interval=100ms"  # else it begins after 5 s
    (receiver,) = lines("receiver")
    with running(receiver, tmp_path), running(serve, tmp_path), running(prometheus, tmp_path):
        answer(f"http://127.0.0.1:{ports['9090']}/readyz")
        answer(f"http://127.0.0.1:{ports['9091']}/-/ready")
        said = here(PAGE["run: deliveries"]).split("$ ")[1:]
        for part in said:
            command, _, expected = part.partition("\n")
            ran = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
            )
            assert ran.returncode == 0, ran
            assert ran.stdout.strip() == expected.strip()
        query = quote(PAGE["run: query"])
        for _ in range(100):
            found = json.loads(answer(f"http://127.0.0.1:{ports['9091']}/api/v1/query?query={query}"))["data"]["result"]
            if len(found) == 3:
                break
            time.sleep(0.1)
        assert {(each["metric"]["outcome"], each["metric"].get("reason", "")) for each in found} == {
            ("accepted", ""),
            ("rejected", "signature_mismatch"),
            ("rejected", "signature_missing"),
        }
    output = (tmp_path / "output").read_text()
    assert output.count("verified by github") == 0  # the route's name is made from its path
    assert output.count("verified by webhooks-github") == 1
    assert "reason=signature_mismatch" in output
    assert "reason=signature_missing" in output
