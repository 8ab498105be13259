//! An hour of faults in a minute: starts fail in each way that sends no event, hooks hang, guests
//! migrate, crash and are reset, and a daemon restarts, while watchers subscribe, leave and lose
//! their connections. After each step the table of every watcher equals `virsh list --all`.
//!
//! `VIREVENT_ROUNDS=20 cargo test --test real hour -- --ignored` makes it longer.

use std::time::Instant;

use virevent::{Change, StartCause, StopCause};
use virevent_testkit::servers::{Config, Deed, Guest, Hook, Libvirtd, Virsh};

use super::silent::SlowEmulator;
use super::watcher::{CALL_TIMEOUT, Watcher};
use super::*;

const VERIFY: Duration = Duration::from_secs(5);

/// Two hosts and their watchers.
struct Site {
    here: Libvirtd,
    /// The host to which guests migrate.
    there: Libvirtd,
    virsh: Virsh,
    virsh_there: Virsh,
    emulator: SlowEmulator,
    watchers: Vec<Watcher>,
    /// Watches `there`.
    watcher_there: Watcher,
}

impl Site {
    async fn new() -> Self {
        let config = |host| Config::default().hook(true).host(host);
        let here = Libvirtd::start_with(config("here")).await.unwrap();
        let there = Libvirtd::start_with(config("there")).await.unwrap();
        let virsh = here.virsh(here.qemu());
        let virsh_there = there.virsh(there.qemu());
        let emulator = SlowEmulator::new();
        for name in ["web", "held", "kept"] {
            virsh.define(&here.furnish(&Guest::idle(name)).unwrap()).await.unwrap();
        }
        let slow = emulator.run_by(&here.furnish(&Guest::idle("slow")).unwrap());
        virsh.define(&slow).await.unwrap();
        let panics = here.furnish(&Guest::after(0, "panics", Deed::Panic)).unwrap();
        let kept = "</features>\n  <on_crash>preserve</on_crash>";
        virsh.define(&panics.replace("</features>", kept)).await.unwrap();
        virsh.run(&["start", "kept"]).await.unwrap();
        let mut watchers = Vec::new();
        for _ in 0..3 {
            watchers.push(Watcher::new(&here, VERIFY).await);
        }
        let watcher_there = Watcher::new(&there, VERIFY).await;
        Self { here, there, virsh, virsh_there, emulator, watchers, watcher_there }
    }

    /// Waits until every watcher's table equals virsh's.
    async fn until_equal(&mut self, after: &str) {
        let since = Instant::now();
        for watcher in &mut self.watchers {
            watcher.until_equal(&self.virsh).await;
        }
        self.watcher_there.until_equal(&self.virsh_there).await;
        eprintln!("{after}: all tables equal after {:?}", since.elapsed());
    }

    async fn run(&self, command: &[&str]) {
        self.virsh.run(command).await.unwrap();
    }

    /// The hook `started` refuses a start, of a persistent guest and of a transient one.
    async fn refused_starts(&mut self) {
        self.here.set_hook("web", "started", Hook::Refuse).unwrap();
        self.here.set_hook("brief", "started", Hook::Refuse).unwrap();
        self.virsh.run(&["start", "web"]).await.unwrap_err();
        let brief = self.here.furnish(&Guest::idle("brief")).unwrap();
        self.virsh.create(&brief).await.unwrap_err();
        self.here.set_hook("web", "started", Hook::Pass).unwrap();
        self.here.set_hook("brief", "started", Hook::Pass).unwrap();
    }

    /// A start that fails. Meanwhile one watcher resyncs, and a new one subscribes.
    async fn start_that_is_listed_and_fails(&mut self) {
        let virsh = self.virsh.clone();
        let starting = tokio::spawn(async move { virsh.run(&["start", "slow"]).await });
        self.emulator.until_started().await;
        self.watchers[0].cut();
        self.watchers.remove(1);
        self.watchers.push(Watcher::new(&self.here, VERIFY).await);
        tokio::time::sleep(CALL_TIMEOUT).await;
        self.emulator.fail();
        starting.await.unwrap().unwrap_err();
    }

    /// A QEMU hangs, the daemon restarts, and the QEMU dies.
    async fn death_during_a_restart(&mut self) {
        self.run(&["start", "web"]).await;
        assert!(self.here.freeze_guest("web"));
        self.here.kill9().await;
        self.here.start_again().await.unwrap();
        tokio::time::sleep(CALL_TIMEOUT).await;
        assert!(self.here.kill_guest("web"));
    }

    /// The lock of one domain is held, while another starts and stops, and a watcher loses its
    /// connection.
    async fn held_lock(&mut self) {
        self.here.set_hook("held", "prepare", Hook::Hang).unwrap();
        let virsh = self.virsh.clone();
        let starting = tokio::spawn(async move { virsh.run(&["start", "held"]).await });
        while self.here.busy_workers().await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.watchers[2].cut();
        // The start, virsh's command, a list for each watcher, and the list of the lost connection.
        let most = 2 + self.watchers.len() + 1;
        for _ in 0..4 {
            self.run(&["start", "web"]).await;
            self.run(&["destroy", "web"]).await;
            for watcher in &mut self.watchers {
                watcher.until("web", Change::Started(StartCause::Booted)).await;
                watcher.until("web", Change::Stopped(StopCause::Destroyed)).await;
            }
            let busy = self.here.busy_workers().await.unwrap();
            assert!(busy <= most, "{busy} workers are busy");
            tokio::time::sleep(CALL_TIMEOUT).await;
        }
        self.here.set_hook("held", "prepare", Hook::Pass).unwrap();
        starting.await.unwrap().unwrap();
        self.run(&["destroy", "held"]).await;
    }

    async fn migration_there_and_back(&mut self) {
        self.run(&["start", "web"]).await;
        let flags = ["tcp://127.0.0.1", "--live", "--unsafe", "--persistent", "--undefinesource"];
        let uri = self.there.uri(self.there.qemu());
        self.run(&[&["migrate", "web", &uri], &flags[..]].concat()).await;
        self.until_equal("a migration").await;
        let uri = self.here.uri(self.here.qemu());
        let back = [&["migrate", "web", &uri], &flags[..]].concat();
        self.virsh_there.run(&back).await.unwrap();
        self.run(&["destroy", "web"]).await;
    }

    async fn crash_and_reset(&mut self) {
        self.run(&["start", "panics"]).await;
        self.virsh.until_state("panics", "crashed").await.unwrap();
        self.until_equal("a crash").await;
        self.run(&["reset", "panics"]).await;
        self.until_equal("the reset of a crashed guest").await;
        self.run(&["destroy", "panics"]).await;
    }

    /// Changes with events.
    async fn announced_changes(&mut self) {
        self.virsh.batch("suspend kept\nstart web\nresume kept\nsuspend web\n").await.unwrap();
        self.until_equal("announced changes").await;
        self.virsh.batch("resume web\nundefine web\ndestroy web\n").await.unwrap();
        self.until_equal("the end of a transient domain").await;
        let web = self.here.furnish(&Guest::idle("web")).unwrap();
        self.virsh.define(&web).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs root and libvirtd"]
async fn after_an_hour_of_faults_every_table_equals_virsh_list() {
    let rounds = std::env::var("VIREVENT_ROUNDS").map_or(1, |text| text.parse().expect("a number"));
    let mut site = Site::new().await;
    site.until_equal("the start").await;
    for _ in 0..rounds {
        site.refused_starts().await;
        site.until_equal("starts that a hook refuses").await;
        site.start_that_is_listed_and_fails().await;
        site.until_equal("a start that fails after it was listed").await;
        site.death_during_a_restart().await;
        site.until_equal("a death without an event").await;
        site.held_lock().await;
        site.until_equal("a held lock").await;
        site.migration_there_and_back().await;
        site.until_equal("a migration back").await;
        site.crash_and_reset().await;
        site.until_equal("a crashed guest's end").await;
        site.announced_changes().await;
        site.until_equal("a new definition").await;
    }
}
