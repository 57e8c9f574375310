"""The live page: this machine alone, the page and nothing else, renewed when a file has changed."""

import http.client
import json
import socket
import threading
from contextlib import contextmanager

import pytest

from se_framework.comparison.report.build import Maker
from se_framework.comparison.report.server import Live, Server, stamp
from se_framework.errors import ConfigError, RunDirectoryError
from tests.support.reported import Page, rows_of, shown_run, without_vega, write_table


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Leave Vega out: what is drawn is tested in a browser."""
    with without_vega():
        yield


@contextmanager
def served(path, **options):
    """Serve a run, and give what asks: (path, Host, method) to (status, headers, body)."""
    maker = Maker([path], critic=False, live=True, **options)
    with Server(Live(maker.content, [path])) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        port = server.server_address[1]

        def ask(where, host=None, method="GET"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.putrequest(method, where, skip_host=True)
            for name in [f"127.0.0.1:{port}"] if host is None else host:
                connection.putheader("Host", name.replace("PORT", str(port)))
            connection.endheaders()
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return answer.status, dict(answer.getheaders()), content

        try:
            yield server, ask
        finally:
            server.shutdown()
            thread.join()


def test_the_page_is_served_live_to_this_machine(tmp_path):
    path = shown_run(tmp_path / "run")
    with served(path) as (server, ask):
        assert (
            server.server_address[0] == "127.0.0.1"
            and server.address == f"http://127.0.0.1:{server.server_address[1]}/"
        )
        status, headers, content = ask("/")
        found = Page(content.decode())
        assert status == 200 and found.problems == [] and "data-live" in found.all("body")[0]
        (policy,) = [a["content"] for a in found.all("meta", http_equiv="Content-Security-Policy")]
        assert "connect-src 'self'" in policy and headers["Cache-Control"] == "no-store"
        assert headers["X-Frame-Options"] == "DENY" and "Access-Control-Allow-Origin" not in headers


def test_nothing_else_is_served(tmp_path):
    path = shown_run(tmp_path / "run")
    (tmp_path / "secret.txt").write_text("secret")
    wanted = ["/config.yaml", "/run/config.yaml", "/../secret.txt", "/..%2fsecret.txt", "//etc/passwd",
              "/page.json/../x", "/index.html", f"{tmp_path}/secret.txt", "http://127.0.0.1/etc/passwd"]  # fmt: skip
    with served(path) as (_, ask):
        for where in wanted:
            status, _, content = ask(where)
            assert status == 404 and b"secret" not in content, where
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert ask("/", method=method)[0] == 501
        assert ask("/", method="HEAD")[2] == b""


@pytest.mark.parametrize(
    "host", [["evil.example:PORT"], ["127.0.0.1"], ["127.0.0.1:1"], [], ["localhost:PORT", "evil"]]
)
def test_a_page_of_elsewhere_that_was_rebound_to_this_address_gets_nothing(tmp_path, host):
    with served(shown_run(tmp_path / "run")) as (_, ask):
        for where in ("/", "/page.json"):
            status, _, content = ask(where, host)
            assert status in (400, 403) and b"w2" not in content
        assert ask("/", ["localhost:PORT"])[0] == 200


def test_what_is_new_is_sent_once_and_sections_that_stand_keep_their_digest(tmp_path):
    path = shown_run(tmp_path / "run", scores=None)
    with served(path) as (_, ask):
        first = json.loads(ask("/page.json")[2])
        assert ask(f"/page.json?have={first['stamp']}")[::2] == (204, b"")
        write_table(path / "metrics.csv", rows_of(9))
        status, _, content = ask(f"/page.json?have={first['stamp']}")
        found = json.loads(content)
        assert status == 200 and found["stamp"] != first["stamp"]
        changed = {key for key in found["stamps"] if found["stamps"][key] != first["stamps"][key]}
        assert changed == {"head"}  # how far the run is; the section of charts stands, so zoom and scroll do
        lengths = {len(chart["data"]["line"][0]["x"]) for chart in found["charts"].values()}
        assert lengths == {9}


def test_a_run_that_is_torn_for_a_moment_leaves_the_last_page(tmp_path):
    path = shown_run(tmp_path / "run")
    with served(path) as (_, ask):
        before = ask("/page.json")[2]
        (path / "config.yaml").rename(tmp_path / "away")
        status, _, content = ask("/page.json")
        assert status == 200 and json.loads(content)["sections"] == json.loads(before)["sections"]


def test_what_cannot_be_shown_is_a_sentence_for_the_browser():
    def fails():
        raise RunDirectoryError("there is nothing")

    with Server(Live(fails, [])) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (503, b"there is nothing\n")
        connection.close(), server.shutdown(), thread.join()


def test_a_stamp_sees_names_sizes_and_times_and_no_locks(tmp_path):
    path = shown_run(tmp_path / "run", frames=[0])
    seen = [stamp([tmp_path])]
    (path / ".lock").write_text("process 1")
    assert stamp([tmp_path]) == seen[-1]
    for change in (
        lambda: (path / "metrics.csv").write_text("round\n1\n"),
        lambda: (path / "frames" / "x.png").touch(),
    ):
        change()
        seen.append(stamp([tmp_path]))
    assert len(set(seen)) == 3 and stamp([tmp_path / "absent"]) == stamp([])


def test_a_port_that_is_taken_is_one_sentence():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match=r"port=\d+ cannot be had .*: choose another, or port=0"):
            Server(Live(lambda: None, []), other.getsockname()[1])
