//! A browser: Debian's Chromium without a window, driven by the W3C WebDriver
//! protocol, which is JSON over HTTP.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::eventually;

/// How long the browser may take for anything.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// How long the page may take until it shows something.
pub(crate) const SHOWN_LIMIT: Duration = Duration::from_secs(30);

/// How long to wait between two looks at the page.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The name by which elements are named in this protocol.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The keys that a test presses, as the protocol names them.
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";

/// How large the window is.
#[derive(Clone, Copy)]
pub(crate) struct Screen {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) scale: u32,
    pub(crate) is_phone: bool,
}

impl Screen {
    pub(crate) const DESKTOP: Self = Self {
        width: 1440,
        height: 900,
        scale: 1,
        is_phone: false,
    };
    pub(crate) const PHONE: Self = Self {
        width: 390,
        height: 844,
        scale: 2,
        is_phone: true,
    };
}

/// A browser with one tab.
pub(crate) struct Browser {
    driver: Child,
    client: reqwest::Client,
    session: String,
    _profile: TempDir,
}

impl Browser {
    pub(crate) async fn open(screen: Screen) -> Self {
        let (driver, address) = tokio::task::block_in_place(start_driver);
        let profile = TempDir::new().unwrap();
        let client = reqwest::Client::builder()
            .timeout(ANSWER_MAX)
            .no_proxy()
            .build()
            .unwrap();
        let options = json!({
            "args": [
                "--headless=new",
                // Tests run as root in containers, where its sandbox can't start.
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--hide-scrollbars",
                format!("--user-data-dir={}", profile.path().display()),
            ],
        });
        let capabilities = json!({ "browserName": "chrome", "goog:chromeOptions": options });
        let body = json!({ "capabilities": { "alwaysMatch": capabilities } });
        let made = client.post(format!("{address}/session")).json(&body);
        let made: Value = made.send().await.unwrap().json().await.unwrap();
        let id = made["value"]["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("Chromium did not start: {made}"));
        let session = format!("{address}/session/{id}");
        let browser = Self {
            driver,
            client,
            session,
            _profile: profile,
        };
        browser.resize(screen).await;
        browser
    }

    async fn call(&self, path: &str, body: &Value) -> Value {
        let request = self.client.post(format!("{}/{path}", self.session));
        let answer = request.json(body).send().await.unwrap();
        let (status, answer) = (answer.status(), answer.json::<Value>().await.unwrap());
        assert!(status.is_success(), "{path}: {answer}");
        answer["value"].clone()
    }

    pub(crate) async fn resize(&self, screen: Screen) {
        let Screen {
            width,
            height,
            scale,
            is_phone,
        } = screen;
        let params = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &params)
            .await;
    }

    /// As if the person had chosen so in their system's settings.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let params = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", &params).await;
    }

    async fn devtools(&self, command: &str, params: &Value) -> Value {
        let body = json!({ "cmd": command, "params": params });
        self.call("goog/cdp/execute", &body).await
    }

    pub(crate) async fn go(&self, url: &str) {
        self.call("url", &json!({ "url": url })).await;
    }

    /// What a script returns; it may return a promise.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        self.call("execute/sync", &body).await
    }

    /// The first element that fits, once there is one that can be seen.
    async fn element(&self, selector: &str) -> String {
        let seen = format!(
            "return document.querySelector({})?.checkVisibility() ?? false",
            json!(selector)
        );
        self.wait(selector, &seen).await;
        let found = json!({ "using": "css selector", "value": selector });
        let found = self.call("element", &found).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    pub(crate) async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.call(&format!("element/{element}/click"), &json!({}))
            .await;
    }

    pub(crate) async fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        let path = format!("element/{element}/value");
        self.call(&path, &json!({ "text": text })).await;
    }

    /// Presses a key, wherever the focus is.
    pub(crate) async fn press(&self, key: &str) {
        let strokes = json!([
            { "type": "keyDown", "value": key },
            { "type": "keyUp", "value": key },
        ]);
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": strokes });
        self.call("actions", &json!({ "actions": [keyboard] }))
            .await;
    }

    /// Waits until a script returns true.
    pub(crate) async fn wait(&self, what: &str, script: &str) {
        eventually(what, SHOWN_LIMIT, async || {
            let is_so = self.run(script).await == json!(true);
            if !is_so {
                // The page has work to do, too.
                tokio::time::sleep(LOOK_EVERY).await;
            }
            is_so.then_some(())
        })
        .await;
    }

    /// A picture of the whole page, or of what is in the window, as PNG.
    pub(crate) async fn picture(&self, whole: bool) -> Vec<u8> {
        let params = json!({ "captureBeyondViewport": whole });
        let shot = self.devtools("Page.captureScreenshot", &params).await;
        BASE64_STANDARD
            .decode(shot["data"].as_str().unwrap())
            .unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Told that the session is over, it ends its browser; killed, it would
        // leave it.
        let path = self.session.trim_start_matches("http://");
        if let Some((host, path)) = path.split_once('/')
            && let Ok(mut driver) = TcpStream::connect(host)
        {
            let end =
                format!("DELETE /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let _ = driver.set_read_timeout(Some(SHOWN_LIMIT));
            let _ = driver.write_all(end.as_bytes());
            let _ = driver.read_to_end(&mut Vec::new());
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn start_driver() -> (Child, String) {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("these tests need Chromium: `scripts/browser run cargo test` ({error})")
        });
    let said = BufReader::new(driver.stdout.take().unwrap());
    let port = said.lines().map_while(Result::ok).find_map(|line| {
        let rest = line.split_once("started successfully on port ")?.1;
        rest.trim_end_matches('.').parse::<u16>().ok()
    });
    let port = port.expect("chromedriver says where it listens");
    (driver, format!("http://127.0.0.1:{port}"))
}
