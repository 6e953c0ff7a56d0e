//! The shop, as a visitor uses it: through a real browser. Where there is no Chromium, it is not tried, and that is said;
//! with `KILN_BROWSER=required` it fails then.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "a test waits, up to its patience")]

mod chromium;

use chromium::Chromium;
use kiln_tests::Process;
use std::env;
use std::io::Write as _;

#[test]
fn a_visitor_logs_in_on_one_node_shops_on_the_other_and_is_logged_out_on_both() {
    let Some(program) = chromium::find() else {
        assert_ne!(env::var("KILN_BROWSER").as_deref(), Ok("required"), "there is no Chromium");
        // Past the test's capture: who runs the tests is to see it.
        let why = "SKIPPED: the shop in a browser, because there is no Chromium here (KILN_CHROMIUM names one)";
        writeln!(std::io::stderr(), "{why}").unwrap();
        return;
    };
    let mut shop = Process::start("the shop", env!("CARGO_BIN_EXE_shop"), &["--port".as_ref(), "28800".as_ref()]);
    let [a, b] = [address(&mut shop, "web-1"), address(&mut shop, "web-2")];
    let mut browser = Chromium::start(program);
    let (on_a, on_b) = (browser.tab(), browser.tab());

    browser.open(&on_a, &format!("{a}/login"));
    browser.fill(&on_a, "input[name=name]", "Ada");
    browser.click(&on_a, "main button");
    let page = browser.text(&on_a);
    assert!(page.contains("Welcome, Ada.") && page.contains("Served by web-1"), "{page}");

    // The same browser on the other node: she is logged in there, and puts a mug and a bowl into the cart.
    browser.open(&on_b, &b);
    let page = browser.text(&on_b);
    assert!(page.contains("Welcome, Ada.") && page.contains("Served by web-2"), "{page}");
    browser.click(&on_b, "li:nth-child(1) button");
    browser.open(&on_b, &b);
    browser.click(&on_b, "li:nth-child(2) button");
    let page = browser.text(&on_b);
    assert!(page.contains("Cart (2)") && page.contains("Rice bowl"), "{page}");

    browser.open(&on_a, &format!("{a}/cart"));
    let page = browser.text(&on_a);
    assert!(page.contains("Cart (2)") && page.contains("Breakfast mug"), "{page}");
    browser.click(&on_a, "header form button");
    let page = browser.text(&on_a);
    assert!(page.contains("Log in, or just begin") && page.contains("Cart (0)"), "{page}");

    // The page of the other node is still open. Whatever is clicked on it, she is asked to log in.
    browser.click(&on_b, "main form button");
    let page = browser.text(&on_b);
    assert!(page.contains("You are logged out") && page.contains("Log in"), "{page}");
    browser.click(&on_b, "main a[href='/login']");
    let page = browser.text(&on_b);
    assert!(page.contains("Your name") && page.contains("Cart (0)") && page.contains("Served by web-2"), "{page}");

    drop(browser);
    shop.terminate();
    let (status, said) = shop.wait();
    assert!(status.success(), "{status}: {said:?}");
}

/// Where a node answers, as the shop says it.
fn address(shop: &mut Process, node: &str) -> String {
    loop {
        let line = shop.hear();
        if let Some(rest) = line.trim().strip_prefix(node) {
            return rest.trim().to_owned();
        }
    }
}
