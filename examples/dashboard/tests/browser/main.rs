//! The page in a real browser: `cargo test -p dashboard --test browser -- --ignored`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chromium;

use std::net::SocketAddr;
use std::sync::Arc;

use dashboard::{Board, router};
use fantoccini::Locator;
use fantoccini::key::Key;
use tokio::net::TcpListener;
use virevent::EventSource;
use virevent_testkit::FakeHypervisor;

use self::chromium::Chromium;

/// A dashboard of these hosts. It runs until it is ended.
struct Dashboard {
    address: SocketAddr,
    board: Board,
    server: tokio::task::JoinHandle<()>,
}

impl Dashboard {
    async fn start(address: &str, fakes: &[&FakeHypervisor]) -> Self {
        let source = |fake: &&FakeHypervisor| Arc::new((*fake).clone()) as Arc<dyn EventSource>;
        let board = Board::of(fakes.iter().map(source).collect()).await.unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = axum::serve(listener, router(board.clone()));
        let server = tokio::spawn(async move { served.await.unwrap() });
        Self { address, board, server }
    }

    async fn open(&self, browser: &Chromium) {
        browser.page.goto(&format!("http://{}/", self.address)).await.unwrap();
        browser.until("document.getElementById('link').dataset.state === 'live'").await;
    }

    async fn end(self) {
        self.board.close().await;
        self.server.abort();
    }
}

fn hosts() -> [FakeHypervisor; 2] {
    ["berlin", "paris"].map(|name| {
        let fake = FakeHypervisor::builder().uri(&format!("fake:{name}")).host(name).build();
        fake.define(&format!("db-{name}")).unwrap();
        fake.create(&format!("web-{name}")).unwrap();
        fake
    })
}

/// The row of a domain, as an expression.
fn row(name: &str) -> String {
    let is_it = format!("row.querySelector('.name .label').textContent === '{name}'");
    format!("[...document.querySelectorAll('#rows tr')].find(row => {is_it})")
}

fn has_state(name: &str, state: &str) -> String {
    format!("{}.querySelector('.state').textContent === '{state}'", row(name))
}

/// The names of the rows that are shown.
const SHOWN: &str = "[...document.querySelectorAll('#rows tr')].filter(row => !row.hidden)\
                     .map(row => row.querySelector('.label').textContent).join(' ')";

#[tokio::test]
#[ignore = "needs chromium"]
async fn the_page_follows_what_happens() {
    let [berlin, paris] = hosts();
    let dashboard = Dashboard::start("127.0.0.1:0", &[&berlin, &paris]).await;
    let browser = Chromium::start(1400, 900).await;
    dashboard.open(&browser).await;
    browser.until(&format!("{SHOWN} === 'db-berlin db-paris web-berlin web-paris'")).await;
    browser.until(&has_state("web-paris", "running")).await;

    berlin.start("db-berlin").unwrap();
    browser.until(&has_state("db-berlin", "running")).await;
    berlin.stop("web-berlin").unwrap();
    browser.until(&format!("{SHOWN} === 'db-berlin db-paris web-paris'")).await;
    browser
        .until("document.querySelector('#activity li').textContent.includes('web-berlin')")
        .await;

    // Unreachable is not stopped.
    paris.go_down();
    browser
        .until("document.querySelector('.card.is-lost').textContent.includes('fake:paris')")
        .await;
    browser.until(&format!("{}.classList.contains('is-uncertain')", row("web-paris"))).await;
    browser.until(&has_state("web-paris", "running")).await;
    // In words, not only in a slanted face, and in a narrow window too.
    browser
        .until(&format!(
            "{}.querySelector('.note').innerText === 'transient · last known'",
            row("web-paris")
        ))
        .await;
    let announced = "document.getElementById('announce').textContent";
    browser.until(&format!("{announced} === 'fake:paris is unreachable'")).await;
    paris.restore();
    browser.until(&format!("!{}.classList.contains('is-uncertain')", row("web-paris"))).await;
    browser.until(&format!("{announced} === 'fake:paris is reachable again'")).await;
    browser.end().await;
    dashboard.end().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn search_states_order_and_theme_work_by_keyboard() {
    let [berlin, paris] = hosts();
    let dashboard = Dashboard::start("127.0.0.1:0", &[&berlin, &paris]).await;
    let browser = Chromium::start(1400, 900).await;
    dashboard.open(&browser).await;
    let shows = |names: &str| format!("{SHOWN} === '{names}'");
    browser.until(&shows("db-berlin db-paris web-berlin web-paris")).await;

    let press = async |key: &str| {
        browser.page.active_element().await.unwrap().send_keys(key).await.unwrap();
    };
    press("/").await;
    browser.until("document.activeElement.id === 'search'").await;
    press("Berlin RUN").await;
    browser.until(&shows("web-berlin")).await;
    press("x").await;
    browser.until("!document.getElementById('empty').hidden").await;
    press(&Key::Escape.to_string()).await;
    browser.until(&shows("db-berlin db-paris web-berlin web-paris")).await;

    let click = async |selector: &str| {
        let found = browser.page.find(Locator::Css(selector)).await.unwrap();
        // As the keyboard does it.
        found.send_keys(&Key::Enter.to_string()).await.unwrap();
    };
    click("#states button:nth-child(2)").await;
    browser.until(&shows("db-berlin db-paris")).await;
    browser
        .until("document.querySelector('#states button:nth-child(2)').ariaPressed === 'true'")
        .await;
    click("#states button:nth-child(2)").await;
    click("th button[data-sort=host]").await;
    browser.until(&shows("db-berlin web-berlin db-paris web-paris")).await;
    click("th button[data-sort=host]").await;
    browser.until(&shows("db-paris web-paris db-berlin web-berlin")).await;
    browser
        .until("document.querySelector('th[aria-sort=descending]').innerText.includes('Host')")
        .await;

    let colour = "getComputedStyle(document.body).backgroundColor";
    click("#theme").await;
    let light = browser.value(colour).await;
    click("#theme").await;
    assert_ne!(browser.value(colour).await, light);
    // It is kept for the next visit.
    browser.page.refresh().await.unwrap();
    browser.until("document.documentElement.dataset.theme === 'dark'").await;
    browser.end().await;
    dashboard.end().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn an_outage_moves_nothing_below_the_hosts() {
    let [berlin, paris] = hosts();
    let dashboard = Dashboard::start("127.0.0.1:0", &[&berlin, &paris]).await;
    let browser = Chromium::start(1400, 900).await;
    dashboard.open(&browser).await;
    browser.until(&has_state("web-paris", "running")).await;
    let place = "document.querySelector('#rows').getBoundingClientRect().top";
    let before = browser.value(place).await;
    berlin.go_down();
    paris.go_down();
    browser.until("document.querySelectorAll('.card.is-lost .card-fault').length === 2").await;
    assert_eq!(browser.value(place).await, before);
    browser.end().await;
    dashboard.end().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn a_name_that_is_markup_is_shown_as_text() {
    let fake = FakeHypervisor::new();
    let hostile = "<img src=x onerror=\"document.title='owned'\"><script>alert(1)<b>&amp;";
    fake.create(hostile).unwrap();
    let dashboard = Dashboard::start("127.0.0.1:0", &[&fake]).await;
    let browser = Chromium::start(1400, 900).await;
    dashboard.open(&browser).await;
    fake.suspend(hostile).unwrap();
    browser.until("document.querySelector('#activity li')").await;
    let name = browser.value("document.querySelector('#rows .label').textContent").await;
    assert_eq!(name, hostile);
    assert_eq!(
        browser.value("document.querySelectorAll('table img, table script').length").await,
        0
    );
    assert_eq!(browser.value("document.title").await, "Virtual machines");
    browser.end().await;
    dashboard.end().await;
}

#[tokio::test]
#[ignore = "needs chromium"]
async fn the_page_heals_when_the_server_is_back() {
    let fake = FakeHypervisor::new();
    fake.create("web").unwrap();
    let first = Dashboard::start("127.0.0.1:0", &[&fake]).await;
    let address = first.address.to_string();
    let browser = Chromium::start(1400, 900).await;
    first.open(&browser).await;
    browser.until(&has_state("web", "running")).await;
    first.end().await;
    browser.until("document.getElementById('link').dataset.state === 'lost'").await;
    browser.until("document.body.classList.contains('is-stale')").await;
    let announced = "document.getElementById('announce').textContent";
    browser.until(&format!("{announced} === 'no connection to the dashboard'")).await;
    fake.stop("web").unwrap();
    fake.create("db").unwrap();
    let second = Dashboard::start(&address, &[&fake]).await;
    browser.until(&format!("{SHOWN} === 'db'")).await;
    browser.until("document.getElementById('link').dataset.state === 'live'").await;
    browser.until(&format!("{announced} === 'the dashboard is connected again'")).await;
    browser.end().await;
    second.end().await;
}

/// With `VIREVENT_PICTURES=FOLDER` it leaves pictures of the page there, those of the docs among them.
#[tokio::test]
#[ignore = "needs chromium"]
async fn five_hundred_domains_are_drawn_and_searched() {
    let hosts: Vec<_> = (1..=5).map(|host| crowded(&format!("host-{host}"))).collect();
    let dashboard = Dashboard::start("127.0.0.1:0", &hosts.iter().collect::<Vec<_>>()).await;
    let browser = Chromium::start(1400, 980).await;
    dashboard.open(&browser).await;
    let count = "document.querySelectorAll('#rows tr:not([hidden])').length";
    browser.until(&format!("{count} === 500")).await;
    for host in &hosts {
        for number in 0..100 {
            // Those that cannot be suspended stay as they are.
            let _ = host.suspend(&name(number));
        }
    }
    browser.until("document.getElementById('states').textContent.includes('paused 400')").await;
    for host in &hosts {
        (0..100).filter(|number| number % 3 > 0).for_each(|number| {
            let _ = host.resume(&name(number));
        });
    }
    browser.until("document.getElementById('states').textContent.includes('running 265')").await;
    hosts[3].crash(&name(7)).unwrap();
    hosts[1].go_down();
    browser.until("document.querySelector('.card.is-lost')").await;
    browser.until("document.querySelector('#activity li').textContent.includes('git-1')").await;
    let picture = async |name: &str| {
        if let Some(folder) = std::env::var_os("VIREVENT_PICTURES") {
            let picture = browser.page.screenshot().await.unwrap();
            std::fs::write(std::path::Path::new(&folder).join(name), picture).unwrap();
        }
    };
    picture("light.png").await;
    browser.value("document.getElementById('theme').click()").await;
    browser.value("document.getElementById('theme').click()").await;
    picture("dark.png").await;
    let search = browser.page.find(Locator::Id("search")).await.unwrap();
    search.send_keys("host-3 web").await.unwrap();
    browser.until(&format!("{count} > 0 && {count} < 100")).await;
    picture("search.png").await;
    browser.page.set_window_size(420, 900).await.unwrap();
    picture("narrow.png").await;
    browser.end().await;
    dashboard.end().await;
}

fn name(number: usize) -> String {
    let roles = ["web", "db", "cache", "queue", "build", "mail", "vpn", "git", "log", "test"];
    format!("{}-{}", roles[number % 10], number / 10 + 1)
}

/// A host with a hundred domains, 80 of which run.
fn crowded(host: &str) -> FakeHypervisor {
    let uri = format!("qemu+ssh://{host}/system");
    let fake = FakeHypervisor::builder().uri(&uri).host(host).build();
    for number in 0..100 {
        fake.define(&name(number)).unwrap();
        if number % 5 != 4 {
            fake.start(&name(number)).unwrap();
        }
    }
    fake
}
