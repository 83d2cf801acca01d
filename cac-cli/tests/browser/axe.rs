//! axe-core, which finds what shuts people out of a page.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use crate::browser::Browser;

static SOURCE: LazyLock<String> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_BIN_EXE_cac")).parent().unwrap();
    let tools = std::env::var_os("CAC_TOOLS")
        .map_or_else(|| target.parent().unwrap().join("tools"), PathBuf::from);
    let file = tools.join("browser/node_modules/axe-core/axe.min.js");
    std::fs::read_to_string(&file).unwrap_or_else(|error| {
        panic!("{} cannot be read ({error}): run .ci/tools, which installs it, or say with CAC_TOOLS where it is", file.display())
    })
});

/// Makes it ready on the page that is open.
pub(crate) async fn load(browser: &Browser) {
    browser.evaluate(&format!("{};0", *SOURCE)).await;
}

/// What it finds there now: rule, where, and what to do.
pub(crate) async fn violations(browser: &Browser) -> Vec<String> {
    let run = "axe.run(document, {resultTypes: ['violations']}).then((told) => told.violations.flatMap((v) => \
               v.nodes.map((n) => `${v.id} at ${n.target.join(' ')}: ${n.failureSummary.replace(/\\s+/g, ' ')}`)))";
    let Value::Array(found) = browser.evaluate(run).await else {
        panic!("axe says nothing");
    };
    found
        .iter()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}
