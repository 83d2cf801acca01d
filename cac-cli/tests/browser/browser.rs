//! Somebody at a browser: finds things by what is written on them, clicks, types, and reads what the browser complains of.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::elements::{Element, ElementRef};
use fantoccini::error::CmdError;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use crate::driver::Driver;

/// For something on a page to be there.
const SOON: Duration = Duration::from_secs(20);
pub(crate) const TAB: char = '\u{e004}';
pub(crate) const ENTER: char = '\u{e007}';

/// How things are named, as assistive software has it but for rare cases; and what can be seen.
const WORDS: &str = r"
const text = (e) => (e.innerText ?? e.textContent ?? '').replace(/\s+/g, ' ').trim();
const own = (label) => [...label.childNodes].filter((n) => !n.matches?.('input, select, textarea')).map((n) => n.textContent).join(' ').replace(/\s+/g, ' ').trim();
const name = (e) => e.getAttribute?.('aria-label') || (e.labels?.length ? own(e.labels[0]) : '') || text(e);
const seen = (e) => e.checkVisibility({ visibilityProperty: true });
const best = (all, of, words) => all.find((e) => of(e) === words) ?? all.find((e) => of(e).startsWith(words));
";

#[derive(Debug)]
struct Extension {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Extension {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

pub(crate) struct Browser {
    client: Client,
    url: String,
    // Ends after the client.
    _driver: Driver,
}

impl Browser {
    /// With this site.
    pub(crate) async fn new(url: &str) -> Self {
        let mut driver = Driver::start();
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(driver.capabilities())
            .connect(&format!("http://127.0.0.1:{}", driver.port))
            .await
            .unwrap_or_else(|error| {
                panic!("Chromium cannot be started ({error}): run .ci/tools, which installs it")
            });
        driver.session = client.session_id().await.unwrap();
        let browser = Self {
            client,
            url: url.to_owned(),
            _driver: driver,
        };
        browser.size(1280).await;
        browser
    }

    async fn ask(&self, path: &'static str, body: Value) -> Value {
        self.client
            .issue_cmd(Extension { path, body })
            .await
            .unwrap()
    }

    /// A command of the protocol that DevTools speak.
    pub(crate) async fn devtools(&self, cmd: &str, params: Value) -> Value {
        let asked = json!({"cmd": cmd, "params": params});
        self.ask("goog/cdp/execute", asked).await
    }

    /// The value of an expression; the policy of the page does not bind it.
    pub(crate) async fn evaluate(&self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut told = self.devtools("Runtime.evaluate", asked).await;
        let failed = &told["exceptionDetails"];
        assert!(failed.is_null(), "{failed}");
        told["result"]["value"].take()
    }

    /// A real viewport of this width, narrower than a window can be.
    pub(crate) async fn size(&self, width: u32) {
        self.window(width, 900).await;
    }

    pub(crate) async fn window(&self, width: u32, height: u32) {
        let asked =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", asked)
            .await;
    }

    /// `light` or `dark`; and nothing moves, so that what is looked at stays as it is.
    pub(crate) async fn theme(&self, theme: &str) {
        let features = json!([
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.devtools(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }

    /// From the next page on.
    pub(crate) async fn script(&self, on: bool) {
        self.devtools(
            "Emulation.setScriptExecutionDisabled",
            json!({"value": !on}),
        )
        .await;
    }

    pub(crate) async fn forget_everything(&self) {
        self.devtools("Network.clearBrowserCookies", json!({}))
            .await;
    }

    pub(crate) async fn goto(&self, path: &str) {
        let url = format!("{}{path}", self.url);
        self.client.goto(&url).await.unwrap();
    }

    /// Path and query of where it is.
    pub(crate) async fn path(&self) -> String {
        let url = self.client.current_url().await.unwrap();
        let query = url
            .query()
            .map_or(String::new(), |query| format!("?{query}"));
        format!("{}{query}", url.path())
    }

    /// What can be read on the page.
    pub(crate) async fn text(&self) -> String {
        let script = "return document.body?.innerText ?? ''";
        let text = self.client.execute(script, Vec::new()).await;
        // A page may go while it is asked.
        text.map_or(String::new(), |text| {
            text.as_str().unwrap_or_default().to_owned()
        })
    }

    /// Tries until there is something; between two tries a page may be replaced by another.
    pub(crate) async fn until<T>(&self, what: &str, mut get: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(found) = get().await {
                return found;
            }
            if Instant::now() > deadline {
                let (path, text) = (self.path().await, self.text().await);
                panic!("{what}: never, at {path}:\n{text}\n{:?}", self.log().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn sees(&self, words: &str) {
        self.until(words, async || {
            self.text().await.contains(words).then_some(())
        })
        .await;
    }

    pub(crate) async fn arrives(&self, at: &str) -> String {
        self.until(&format!("to arrive at {at}"), async || {
            let path = self.path().await;
            path.starts_with(at).then_some(path)
        })
        .await
    }

    async fn find(&self, script: &str, words: &str) -> Option<Element> {
        let script = format!("{WORDS}const words = arguments[0];{script}");
        let found = self
            .client
            .execute(&script, vec![json!(words)])
            .await
            .ok()?;
        let id = found.get("element-6066-11e4-a52e-4f735466cecf")?.as_str()?;
        let id = ElementRef::from(id.to_owned());
        Some(Element::from_element_id(self.client.clone(), id))
    }

    /// Does it once it can be done.
    async fn act(
        &self,
        what: &str,
        script: &str,
        words: &str,
        act: impl AsyncFn(Element) -> Result<(), CmdError>,
    ) {
        self.until(&format!("{what} “{words}”"), async || {
            let found = self.find(script, words).await?;
            act(found).await.ok()
        })
        .await;
    }

    /// Clicks the link, button or summary with these words or, if there is none, whose words begin so.
    pub(crate) async fn click(&self, words: &str) {
        let script = "const all = [...document.querySelectorAll('a, button, summary, [role=button]')].filter(seen); \
                      return best(all.filter((e) => e.closest('main')), name, words) ?? best(all, name, words);";
        self.act("to click", script, words, async |found| found.click().await)
            .await;
    }

    /// Fills the field with this label.
    pub(crate) async fn fill(&self, label: &str, text: &str) {
        self.act("to fill", FIELD, label, async |found| {
            // A list takes the first of its offers that begins so.
            if found.tag_name().await? != "select" {
                found.clear().await?;
            }
            found.send_keys(text).await
        })
        .await;
    }

    /// Ticks the box, or chooses the one of several, with this label.
    pub(crate) async fn tick(&self, label: &str) {
        self.act("to tick", FIELD, label, async |found| found.click().await)
            .await;
    }

    /// What is offered by the field with this label.
    pub(crate) async fn value(&self, label: &str) -> String {
        let found = self.find(FIELD, label).await.unwrap();
        let value = found.prop("value").await.unwrap();
        value.unwrap_or_default()
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub(crate) async fn press(&self, keys: &str) {
        let mut actions = KeyActions::new("keyboard".into());
        for value in keys.chars() {
            actions = actions
                .then(KeyAction::Down { value })
                .then(KeyAction::Up { value });
        }
        self.client.perform_actions(actions).await.unwrap();
    }

    /// Tab until what these words begin has the focus; that it is seen to have it as well.
    pub(crate) async fn tab_to(&self, words: &str) {
        let script = format!(
            "{WORDS}const e = document.activeElement; const style = getComputedStyle(e); \
             return e === document.body ? ['', false] : [name(e), style.outlineStyle !== 'none' || style.boxShadow !== 'none'];"
        );
        let mut passed = Vec::new();
        for _ in 0..80 {
            let told = self.client.execute(&script, Vec::new()).await.unwrap();
            let name = told[0].as_str().unwrap_or_default().to_owned();
            if name.starts_with(words) && told[1] == true {
                return;
            }
            passed.push(name);
            self.press(&TAB.to_string()).await;
        }
        panic!("no Tab leads to “{words}” with a mark of the focus: {passed:?}");
    }

    pub(crate) async fn sign_in(&self, user: &str) {
        self.forget_everything().await;
        self.goto("/login").await;
        self.fill("User name", user).await;
        self.fill("Password", &format!("{user}-demo")).await;
        self.click("Sign in").await;
        self.arrives("/containers").await;
    }

    /// What the browser complained of since it was asked last.
    pub(crate) async fn log(&self) -> Vec<String> {
        let told = self.ask("se/log", json!({"type": "browser"})).await;
        let entries = told.as_array().into_iter().flatten();
        let bad = entries.filter(|entry| {
            let text = entry["message"].as_str().unwrap_or_default();
            entry["level"] == "SEVERE" || text.contains("Content Security Policy")
        });
        bad.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Nothing was complained of but answers with this status, which is 0 where none is meant.
    pub(crate) async fn complaints(&self, meant: u16) -> Vec<String> {
        let meant = format!("responded with a status of {meant} ");
        let mut log = self.log().await;
        log.retain(|text| !text.contains(&meant));
        log
    }

    /// As PNG, the whole page or what the window shows of it.
    pub(crate) async fn picture(&self, whole: bool) -> Vec<u8> {
        let asked = json!({"format": "png", "captureBeyondViewport": whole});
        let told = self.devtools("Page.captureScreenshot", asked).await;
        BASE64_STANDARD
            .decode(told["data"].as_str().unwrap())
            .unwrap()
    }
}

const FIELD: &str = "const label = best([...document.querySelectorAll('label')].filter((l) => l.control && seen(l)), own, words); \
                     return label?.control ?? null;";
