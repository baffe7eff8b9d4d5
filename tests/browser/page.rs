//! The operators' page, as a person sees it.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::common::process::{ADMIN_EMAIL, ADMIN_PASSWORD};
use crate::driver::{Browser, ENTER, Screen};

/// What scripts of these tests may say: the exact value of a figure, and the
/// text of an element.
const WORDS: &str = "
    const value = (series) => document.querySelector(`[data-series='${series}']`)?.dataset.value;
    const text = (id) => {
      const found = document.getElementById(id);
      return (found?.closest('section') ?? found)?.innerText ?? '';
    };
";

pub(crate) struct Page {
    pub(crate) browser: Browser,
    base: String,
    axe: String,
}

impl Page {
    pub(crate) async fn open(base: &str, screen: Screen) -> Self {
        let axe = std::env::var("ONSALE_TEST_AXE").unwrap_or_else(|_| {
            panic!("this test needs axe-core at ONSALE_TEST_AXE: `scripts/browser run cargo test`")
        });
        let browser = Browser::open(screen).await;
        browser.prefer("light").await;
        browser.go(&format!("{base}/ops")).await;
        Self {
            browser,
            base: base.to_owned(),
            axe: std::fs::read_to_string(axe).unwrap(),
        }
    }

    pub(crate) async fn fill_in(&self, email: &str, password: &str) {
        let clear =
            "for (const id of ['email', 'password']) document.getElementById(id).value = '';
            document.getElementById('sign-in-error').textContent = ''";
        self.browser.run(clear).await;
        self.browser.type_into("#email", email).await;
        self.browser.type_into("#password", password).await;
    }

    /// Signs in by keyboard, in vain: the page says why. On a machine that is
    /// busy it may have to be tried again, as it says then.
    pub(crate) async fn is_refused(&self, email: &str, password: &str, why: &str) {
        const TRIES_MAX: usize = 5;
        let mut said = Value::Null;
        for _ in 0..TRIES_MAX {
            self.fill_in(email, password).await;
            self.browser.press(ENTER).await;
            self.shows("why not", "text('sign-in-error') !== ''").await;
            let script = format!("{WORDS} return text('sign-in-error')");
            said = self.browser.run(&script).await;
            if said.as_str().is_some_and(|said| said.contains(why)) {
                return;
            }
        }
        panic!("{email} was told {said}");
    }

    /// As the administrator that the server has made.
    pub(crate) async fn sign_in(&self) {
        self.fill_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
        self.browser.click("#sign-in button").await;
        self.samples(1).await;
    }

    /// Waits until a condition on the page is met.
    pub(crate) async fn shows(&self, what: &str, condition: &str) {
        self.browser
            .wait(what, &format!("{WORDS} return {condition}"))
            .await;
    }

    /// Waits until so many samples more are shown.
    pub(crate) async fn samples(&self, more: u64) {
        let shown = "Number(document.getElementById('panels').dataset.samples ?? 0)";
        let now = self.browser.run(&format!("return {shown}")).await;
        let wanted = now.as_u64().unwrap() + more;
        self.shows("more samples", &format!("{shown} >= {wanted}"))
            .await;
    }

    /// The exact value of a figure.
    pub(crate) async fn value(&self, series: &str) -> f64 {
        let script = format!("{WORDS} return value({})", json!(series));
        let said = self.browser.run(&script).await;
        said.as_str()
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("{series} is {said}"))
    }

    /// Nothing that axe-core knows keeps people out of it, at least not badly.
    pub(crate) async fn assert_accessible(&self, what: &str) {
        let script = format!(
            "{}; return axe.run(document, {{ resultTypes: ['violations'] }}).then((found) => found.violations)",
            self.axe
        );
        let found = self.browser.run(&script).await;
        let bad = found.as_array().unwrap().iter();
        let bad: Vec<String> = bad
            .filter(|one| one["impact"] == "serious" || one["impact"] == "critical")
            .map(|one| {
                let nodes = one["nodes"].as_array().unwrap().iter();
                let places: Vec<&Value> = nodes.take(3).map(|node| &node["html"]).collect();
                format!("{}: {} {places:?}", one["id"], one["help"])
            })
            .collect();
        assert!(bad.is_empty(), "{what}:\n{}", bad.join("\n"));
    }

    /// No request has left for another host.
    pub(crate) async fn assert_loaded_from_here_alone(&self) {
        let script = "return performance.getEntriesByType('resource').map((one) => one.name)";
        let loaded = self.browser.run(script).await;
        let loaded = loaded.as_array().unwrap();
        assert!(loaded.len() > 5, "{loaded:?}");
        for one in loaded {
            let url = one.as_str().unwrap();
            assert!(
                url.starts_with(&self.base) || url.starts_with("data:"),
                "{url}"
            );
        }
    }

    /// Keeps a picture, where they are wanted.
    pub(crate) async fn picture(&self, name: &str, whole: bool) {
        self.browser.run("scrollTo(0, 0)").await;
        let png = self.browser.picture(whole).await;
        assert!(png.len() > 10_000, "{name} shows nothing");
        if let Some(folder) = pictures() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("{name}.png")), png).unwrap();
        }
    }
}

/// Where pictures are kept, if they are wanted.
pub(crate) fn pictures() -> Option<PathBuf> {
    let folder = std::env::var_os("ONSALE_SCREENSHOTS")?;
    Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder))
}

/// The sum of a metric with these labels, or with any if none are named.
pub(crate) fn metric(text: &str, name: &str) -> f64 {
    let is_meant = |series: &str| series == name || series.split('{').next() == Some(name);
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let meant = lines.filter(|(series, _)| is_meant(series));
    meant.map(|(_, value)| value.parse::<f64>().unwrap()).sum()
}
