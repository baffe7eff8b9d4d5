#!/usr/bin/env python3
"""Passes alerts on to a chat.

Alertmanager posts its webhook (https://prometheus.io/docs/alerting/latest/configuration/#webhook_config)
to /alerts; this posts {"text": "…"} to CHAT_URL, which is what incoming webhooks
of Slack, Mattermost, Rocket.Chat and, with /slack at the end, Discord take.

    CHAT_URL=https://chat.example/hooks/… ops/chat/receiver.py [LISTEN]

LISTEN is 127.0.0.1:9094 by default. Nothing but Python's standard library is
needed. What the chat doesn't take is answered 502, so that Alertmanager sends it
again.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY_BYTES_MAX = 1 << 20
# A body that is too long is read to its end up to this: a connection closed
# with bytes unread is reset, and the sender may never see why.
DROPPED_BYTES_MAX = 16 << 20
DROPPED_AT_ONCE_BYTES = 1 << 16
# More alerts than this are counted, not listed: a chat has its limits, too.
ALERTS_SHOWN_MAX = 20
TEXT_CHARS_MAX = 300
CHAT_TIMEOUT_SECONDS = 10
CLIENT_TIMEOUT_SECONDS = 10

SIGNS = {"page": "🔴", "ticket": "🟠", "info": "🔵"}


def line(alert):
    """One alert as a line of text."""
    labels = alert.get("labels", {})
    is_over = alert.get("status") == "resolved"
    sign = "✅" if is_over else SIGNS.get(labels.get("severity"), "⚪")
    name = labels.get("alertname", "an alert")
    summary = alert.get("annotations", {}).get("summary", "")
    state = "is over" if is_over else f"since {alert.get('startsAt', 'now')}"
    return f"{sign} {name}: {summary}"[:TEXT_CHARS_MAX] + f" ({state})"


def message(webhook):
    """What is said of one webhook of Alertmanager."""
    alerts = webhook["alerts"]
    lines = [line(alert) for alert in alerts[:ALERTS_SHOWN_MAX]]
    more = len(alerts) - len(lines) + int(webhook.get("truncatedAlerts", 0))
    if more > 0:
        lines.append(f"… and {more} more")
    return "\n".join(lines)


def tell(chat_url, text):
    """Posts to the chat; raises if it isn't taken."""
    body = json.dumps({"text": text}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(chat_url, body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=CHAT_TIMEOUT_SECONDS):
        pass


class Receiver(BaseHTTPRequestHandler):
    """Takes webhooks."""

    chat_url = ""
    timeout = CLIENT_TIMEOUT_SECONDS

    def do_POST(self):
        if self.path != "/alerts":
            return self.answer(404, "post to /alerts")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            return self.answer(411, "a length is wanted")
        if int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            self.answer(413, "too long")
            return self.drop(min(int(length), DROPPED_BYTES_MAX))
        try:
            text = message(json.loads(self.rfile.read(int(length))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return self.answer(400, f"no webhook of Alertmanager: {error!r}")
        try:
            tell(self.chat_url, text)
        except (urllib.error.URLError, OSError) as error:
            self.log_error("the chat did not take it: %s", error)
            return self.answer(502, "the chat did not take it")
        return self.answer(200, "told")

    def drop(self, length):
        """Reads what nobody wants, until the sender has no more."""
        while length > 0:
            read = len(self.rfile.read1(min(length, DROPPED_AT_ONCE_BYTES)))
            if read == 0:
                return
            length -= read

    def answer(self, status, text):
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def server(listen, chat_url):
    """A receiver that listens, and waits for serve_forever()."""
    host, port = listen.rsplit(":", 1)
    handler = type("ReceiverOf", (Receiver,), {"chat_url": chat_url})
    return ThreadingHTTPServer((host, int(port)), handler)


def main():
    chat_url = os.environ.get("CHAT_URL", "")
    if not chat_url.startswith(("http://", "https://")):
        sys.exit("CHAT_URL: the address of the chat's incoming webhook is wanted")
    listen = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9094"
    with server(listen, chat_url) as receiver:
        print(f"alerts are taken at http://{listen}/alerts", flush=True)
        try:
            receiver.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
