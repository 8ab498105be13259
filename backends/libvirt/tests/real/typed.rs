//! The same scenario watched by `virsh event` and by a stream: every event and every field that virsh
//! prints is compared.

mod as_virsh;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use virevent::{Kind, Kinds, Notice, NoticeBody};
use virevent_testkit::fakes::libvirtd::FakeLibvirtd;
use virevent_testkit::notices;
use virevent_testkit::servers::{Deed, Guest, Libvirtd, Virsh, VirshEvents};

use self::as_virsh::as_virsh;
use super::*;

/// The guest whose events show that both watchers are registered, and that both are at the end.
const PROBE: &str = "for domain 'probe'";

/// The elements for a guest that sleeps.
const SLEEPS: &str = "<pm><suspend-to-mem enabled='yes'/><suspend-to-disk enabled='yes'/></pm>";

/// The XML of a guest with these elements added to it and to its devices.
fn extended(xml: &str, domain: &str, devices: &str) -> String {
    xml.replace("<controller type='usb' model='none'/>", "<controller type='usb'/>")
        .replace("<features>", &format!("{domain}<features>"))
        .replace("</devices>", &format!("{devices}</devices>"))
}

/// The events that virsh prints up to the last of them, each with the lines that belong to it.
async fn printed_until(virsh: &mut VirshEvents, last: &str) -> Vec<String> {
    let mut events: Vec<String> = Vec::new();
    while events.last().is_none_or(|event| event != last) {
        let line = tokio::time::timeout(PATIENCE, virsh.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("no {last} after {events:#?}")).unwrap();
        match events.last_mut() {
            Some(event) if !line.starts_with("event '") => *event = format!("{event}\n{line}"),
            _ => events.push(line),
        }
    }
    events
}

/// The events of a stream up to the last of them, as virsh prints them.
async fn streamed_until(events: &mut EventStream, last: &str) -> (Vec<String>, Vec<Kind>) {
    let mut lines = Vec::new();
    let mut kinds = Vec::new();
    while lines.last().is_none_or(|line| line != last) {
        let event = next_within(events, PATIENCE).await;
        let event = event.unwrap_or_else(|failure| panic!("{failure}, after {lines:#?}"));
        if let DomainEvent::Notice(notice) = &event {
            kinds.push(notice.kind());
        }
        lines.push(as_virsh(&event));
    }
    (lines, kinds)
}

/// Runs each line as a command of virsh.
async fn run(virsh: &Virsh, commands: &str) {
    for line in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
        virsh.run(&line.split(' ').collect::<Vec<_>>()).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs libvirtd"]
async fn a_stream_delivers_what_virsh_event_prints() {
    let daemon = Libvirtd::start().await.unwrap();
    let virsh = daemon.virsh(daemon.qemu());
    let mut printed = virsh.events().unwrap();
    let all = Options::default().kinds(Kinds::all());
    let (mut events, existing) = synced_stream(&daemon.uri(daemon.qemu()), all).await;
    assert!(existing.is_empty(), "{existing:?}");

    // virsh registers for one event after the other.
    virsh.define(&daemon.furnish(&Guest::idle("probe")).unwrap()).await.unwrap();
    let registered =
        async { while !printed.next_line().await.unwrap().contains("'metadata-change'") {} };
    let probe = async {
        loop {
            run(&virsh, "desc probe --config --title probe").await;
        }
    };
    tokio::select! {
        () = registered => {}
        () = probe => {}
    }
    let dir = tempfile::tempdir().unwrap();
    act(&daemon, &virsh, dir.path()).await;
    run(&virsh, "undefine probe").await;

    let last = "event 'lifecycle' for domain 'probe': Undefined Removed";
    let mut printed = printed_until(&mut printed, last).await;
    let (mut streamed, kinds) = streamed_until(&mut events, last).await;
    printed.retain(|event| !event.contains(PROBE) && !is_older_form(event));
    streamed.retain(|event| !event.contains(PROBE));
    assert_eq!(streamed, printed);

    let provoked = [
        Kind::RtcChange,
        Kind::Watchdog,
        Kind::IoError,
        Kind::Graphics,
        Kind::BlockJob,
        Kind::DiskChange,
        Kind::TrayChange,
        Kind::PmWakeup,
        Kind::PmSuspend,
        Kind::DeviceRemoved,
        Kind::DeviceAdded,
        Kind::Tunable,
        Kind::AgentLifecycle,
        Kind::MigrationIteration,
        Kind::JobCompleted,
        Kind::MetadataChange,
        Kind::BlockThreshold,
    ];
    for kind in provoked {
        assert!(kinds.contains(&kind), "no {kind} in {streamed:#?}");
    }
}

/// What the scenario cannot provoke, virsh reads of the fake, so that a mistake in a layout is not made
/// twice, in the fake and in the client.
#[tokio::test]
#[ignore = "needs virsh"]
async fn virsh_reads_the_notices_of_the_fake_as_the_stream_does() {
    let daemon = FakeLibvirtd::start().unwrap();
    let web = daemon.host().create("web").unwrap();
    let mut printed = Virsh::to(&daemon.uri()).events().unwrap();
    let all = Options::default().kinds(Kinds::all());
    let (mut events, _) = synced_stream(&daemon.uri(), all).await;
    // The stream registers for all but 4 and 8, virsh for all.
    daemon.until(|daemon| daemon.registered().len() == 25 + 27).await;
    let emit = |body| {
        daemon.host().emit(Notice::new(web.clone(), body, std::time::SystemTime::now()));
    };
    // virsh drops events of a registration whose reply it has not read. This one is its last.
    let registered =
        async { while !printed.next_line().await.unwrap().contains("alias: probe") {} };
    let probe = async {
        loop {
            emit(NoticeBody::MemoryDeviceSizeChange { alias: "probe".into(), size: 1 });
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = registered => {}
        () = probe => {}
    }
    // virsh 9.0 does not know the newer events.
    let newer = [Kind::NicMacChange, Kind::VcpuRemoved, Kind::ChannelLifecycle];
    for body in notices().into_iter().filter(|body| !newer.contains(&body.kind())) {
        emit(body);
    }
    daemon.host().stop("web").unwrap();
    let last = "event 'lifecycle' for domain 'web': Stopped Destroyed";
    let mut printed = printed_until(&mut printed, last).await;
    let (mut streamed, _) = streamed_until(&mut events, last).await;
    // The rest of an event that was cut may be first.
    let is_meant = |event: &String| event.starts_with("event '") && !event.contains("probe");
    printed.retain(|event| is_meant(event) && !is_older_form(event));
    streamed.retain(is_meant);
    assert_eq!(streamed.len(), notices().len() - newer.len() + 1);
    assert_eq!(streamed, printed);
}

/// Of a pair the stream delivers the newer form, and virsh prints both.
fn is_older_form(event: &str) -> bool {
    event.starts_with("event 'io-error' ") || event.starts_with("event 'block-job' ")
}

/// Everything that can be made to happen to guests without an operating system.
async fn act(daemon: &Libvirtd, virsh: &Virsh, dir: &Path) {
    let furnish = |guest: &Guest| daemon.furnish(guest).unwrap();
    let devices = "
      <disk type='file' device='cdrom'>
        <source file='/nonexistent/x.iso' startupPolicy='optional'/>
        <target dev='hdc' bus='ide'/><readonly/>
      </disk>
      <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
      <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>";
    virsh.define(&extended(&furnish(&Guest::idle("web")), "", devices)).await.unwrap();
    let file = |name: &str| dir.join(name).display().to_string();
    let tablet = "<input type='tablet' bus='usb'><alias name='ua-tab'/></input>";
    std::fs::write(file("tablet.xml"), tablet).unwrap();
    std::fs::write(file("media.iso"), vec![0; 65536]).unwrap();
    run(
        virsh,
        &format!(
            "start web
             suspend web
             resume web
             desc web --live --title hello
             desc web --live hello
             metadata web urn:x --live --key x --set <a/>
             blkdeviotune web hda --total-iops-sec 300 --live
             attach-device web {0}/tablet.xml --live
             detach-device web {0}/tablet.xml --live
             change-media web hdc {0}/media.iso --insert --live
             change-media web hdc --eject --live --force
             blockcopy web hda --dest {0}/copy.img --transient-job --wait --format raw
             blockjob web hda --abort
             blockcopy web hda --dest {0}/other.img --transient-job --wait --pivot --format raw",
            dir.display()
        ),
    )
    .await;
    connect_to_vnc(&virsh.run(&["vncdisplay", "web"]).await.unwrap());
    run(
        virsh,
        &format!(
            "reset web
             save web {0}/saved
             restore {0}/saved
             destroy web
             undefine web",
            dir.display()
        ),
    )
    .await;

    let mut guests = daemon.virsh(daemon.qemu()).events().unwrap();
    let mut seen = async |event: &str| {
        while !guests.next_line().await.unwrap().starts_with(event) {}
    };
    virsh.create(&furnish(&Guest::after(3, "clock", Deed::SetClock))).await.unwrap();
    seen("event 'rtc-change'").await;
    virsh.create(&furnish(&Guest::after(0, "dog", Deed::Starve))).await.unwrap();
    seen("event 'watchdog'").await;
    virsh.create(&furnish(&Guest::after(3, "writer", Deed::Write))).await.unwrap();
    run(virsh, "domblkthreshold writer hda 512").await;
    seen("event 'block-threshold'").await;
    let sleeper = furnish(&Guest::after(1, "sleeper", Deed::SleepThenPanic));
    virsh.create(&extended(&sleeper, SLEEPS, "")).await.unwrap();
    seen("event 'pm-suspend'").await;
    run(virsh, "dompmwakeup sleeper").await;
    seen("event 'lifecycle' for domain 'sleeper': Stopped").await;
    let bear = furnish(&Guest::after(1, "bear", Deed::Hibernate));
    virsh.create(&extended(&bear, SLEEPS, "")).await.unwrap();
    seen("event 'lifecycle' for domain 'bear': Stopped").await;
    virsh.create(&misreading(&furnish(&Guest::after(3, "reader", Deed::Misread)))).await.unwrap();
    seen("event 'io-error'").await;
    run(virsh, "destroy clock\ndestroy dog\ndestroy writer\ndestroy reader").await;
}

/// The XML of a guest whose disk is QEMU's own, not libvirt's, and has a sector that cannot be read.
fn misreading(xml: &str) -> String {
    let (head, rest) = xml.split_once("<disk").unwrap();
    let (disk, tail) = rest.split_once("</disk>").unwrap();
    let path = disk.split_once("file='").unwrap().1.split_once('\'').unwrap().0;
    let drive = format!(
        "file.driver=blkdebug,file.image.driver=file,file.image.filename={path},\
         file.inject-error.0.event=read_aio,file.inject-error.0.sector=1,rerror=stop,\
         format=raw,if=ide"
    );
    let arguments = format!(
        "<qemu:commandline><qemu:arg value='-drive'/><qemu:arg value='{drive}'/>\
         </qemu:commandline></domain>"
    );
    let head = head.replace(
        "<domain type='qemu'>",
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>",
    );
    format!("{head}{}", tail.replace("</domain>", &arguments))
}

/// Connects to a guest's console, as far as its picture, and disconnects (RFC 6143).
fn connect_to_vnc(display: &str) {
    let number: u16 = display.trim().rsplit(':').next().unwrap().parse().unwrap();
    let mut socket = TcpStream::connect(("127.0.0.1", 5900 + number)).unwrap();
    let mut answers = [0; 12 + 2 + 4 + 24];
    let (version, rest) = answers.split_at_mut(12);
    let (security, rest) = rest.split_at_mut(2);
    let (result, picture) = rest.split_at_mut(4);
    socket.read_exact(version).unwrap();
    socket.write_all(b"RFB 003.008\n").unwrap();
    socket.read_exact(security).unwrap();
    socket.write_all(&[1]).unwrap(); // no authentication
    socket.read_exact(result).unwrap();
    socket.write_all(&[1]).unwrap(); // shared
    socket.read_exact(picture).unwrap();
}
