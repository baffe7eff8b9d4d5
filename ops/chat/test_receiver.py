"""python3 -m unittest discover -s ops/chat: a real receiver and a real server in the place of the chat."""

import json
import threading
import unittest
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import receiver


class Chat(BaseHTTPRequestHandler):
    """Takes what incoming webhooks take, unless it is out of order."""

    said = []
    status = 200

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.status == 200:
            self.said.append(json.loads(body)["text"])
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_):
        pass


def webhook(count=1, **changes):
    """As Alertmanager 0.25 sends it, version 4."""
    alert = {
        "status": "firing",
        "labels": {"alertname": "OnsaleNotReady", "severity": "page", "instance": "a"},
        "annotations": {"summary": "a can't serve"},
        "startsAt": "2026-11-21T19:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": "1",
    }
    alert.update(changes)
    return {"version": "4", "status": "firing", "truncatedAlerts": 0, "alerts": [alert] * count}


class Test(unittest.TestCase):
    def setUp(self):
        self.chat = type("ChatOfATest", (Chat,), {"said": [], "status": 200})
        chat = self.serve(ThreadingHTTPServer(("127.0.0.1", 0), self.chat))
        quiet = receiver.server("127.0.0.1:0", f"http://127.0.0.1:{chat}/hook")
        quiet.RequestHandlerClass.log_message = lambda *_: None
        self.port = self.serve(quiet)

    def serve(self, server):
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server.server_address[1]

    def post(self, body, path="/alerts"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def test_an_alert_is_told(self):
        self.assertEqual(self.post(webhook()), 200)
        self.assertEqual(
            self.chat.said, ["🔴 OnsaleNotReady: a can't serve (since 2026-11-21T19:00:00Z)"]
        )

    def test_its_end_is_told(self):
        self.assertEqual(self.post(webhook(status="resolved")), 200)
        self.assertEqual(self.chat.said, ["✅ OnsaleNotReady: a can't serve (is over)"])

    def test_many_are_counted(self):
        self.assertEqual(self.post(webhook(count=25)), 200)
        self.assertEqual(self.chat.said[0].count("OnsaleNotReady"), 20)
        self.assertTrue(self.chat.said[0].endswith("… and 5 more"))

    def test_what_the_chat_refuses_is_sent_again_by_alertmanager(self):
        self.chat.status = 500
        self.assertEqual(self.post(webhook()), 502)
        self.chat.status = 200
        self.assertEqual(self.post(webhook()), 200)
        self.assertEqual(len(self.chat.said), 1)

    def test_what_is_no_webhook_is_refused(self):
        for body in (b"{", b"[]", b"{}", b'{"alerts": 1}', b'{"alerts": ["x"]}'):
            self.assertEqual(self.post(body), 400, body)
        self.assertEqual(self.post(webhook(), "/elsewhere"), 404)
        self.assertEqual(self.chat.said, [])

    def test_what_is_too_long_is_refused_and_its_sender_learns_why(self):
        # Far more than the sockets of both sides buffer, so that a receiver which
        # closes without reading cuts its sender off.
        for length in (receiver.BODY_BYTES_MAX + 1, receiver.DROPPED_BYTES_MAX):
            self.assertEqual(self.post(b" " * length), 413, length)
        self.assertEqual(self.chat.said, [])


if __name__ == "__main__":
    unittest.main()
