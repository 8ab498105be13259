//! A real xenstored with many domains at once, that come and go in every way there is.
#![allow(clippy::unwrap_used)]

mod told;

use std::collections::BTreeMap;

use fastrand::Rng;
use virevent::Uuid;
use virevent_testkit::servers::Xenstored;
use virevent_testkit::xen::{Blueprint, Power};

use self::told::{Told, asked, client, started, stopped};

/// What is to be told of each uuid: starts and stops in order, each with its id, and the cause of a stop.
type Story = BTreeMap<Uuid, Vec<String>>;

#[tokio::test]
#[ignore = "needs xenstored"]
async fn of_200_domains_every_start_and_stop_is_told_once_with_its_cause() {
    let daemon = Xenstored::start().await.unwrap();
    let mut told = Told::by(&client(&daemon)).await;
    let (xl, mut random, mut story) = (daemon.toolstack(), Rng::with_seed(4), Story::new());
    let blueprint = |name: &str| Blueprint::named(name).uuid(uuid_of(name));
    let begun = |story: &mut Story, name: &str, domid: u32| {
        story.entry(uuid_of(name)).or_default().push(format!("started {domid}"));
    };
    let ended = |story: &mut Story, name: &str, line: String| {
        story.entry(uuid_of(name)).or_default().push(line);
    };

    let mut domains: Vec<(String, u32)> = Vec::new();
    for n in 0..200 {
        let name = format!("vm{n}");
        let domid = match n % 3 {
            0 => {
                let domid = xl.prepare(blueprint(&name)).unwrap();
                xl.announce(domid).unwrap();
                domid
            }
            1 => {
                let domid = xl.introduce(blueprint(&name).without_name()).unwrap();
                xl.complete(domid).unwrap();
                domid
            }
            _ => xl.introduce(blueprint(&name)).unwrap(),
        };
        begun(&mut story, &name, domid);
        domains.push((name, domid));
        if random.u8(0..10) == 0 {
            told.next().await;
        }
    }
    told.until(200, started).await;
    told.check(&daemon);

    for (name, domid) in domains.iter().step_by(2) {
        xl.rename(*domid, &format!("{name}-renamed")).unwrap();
    }
    let mut asked_so_far = 0;
    for batch in domains.chunks(20) {
        let mut after: Vec<(&str, u32, bool)> = Vec::new();
        for (place, (name, domid)) in batch.iter().enumerate() {
            match place {
                0..10 => {
                    xl.request(*domid, Power::ALL[place % 5]).unwrap();
                    asked_so_far += 1;
                    after.push((name, *domid, true));
                }
                10..12 => {
                    xl.crash(*domid).unwrap();
                    after.push((name, *domid, false));
                }
                12..14 => {
                    xl.release(*domid).unwrap();
                    xl.forget(*domid).unwrap();
                    ended(&mut story, name, format!("stopped {domid}"));
                }
                14..16 => {
                    let other = format!("{name}-reused");
                    xl.reuse(*domid, blueprint(&other)).unwrap();
                    ended(&mut story, name, format!("stopped {domid}"));
                    begun(&mut story, &other, *domid);
                }
                16..18 => {
                    xl.vanish(*domid).unwrap();
                    ended(&mut story, name, format!("stopped {domid}"));
                }
                _ => {}
            }
        }
        // A guest that takes note before anybody has looked was not asked.
        told.until(asked_so_far, asked).await;
        random.shuffle(&mut after);
        for (name, domid, was_asked) in after {
            if was_asked {
                xl.acknowledge(domid).unwrap();
                xl.shut_down(domid).unwrap();
            }
            xl.destroy(domid).unwrap();
            let cause = if was_asked { " (shutdown)" } else { "" };
            ended(&mut story, name, format!("stopped {domid}{cause}"));
            if domid % 2 == 0 && was_asked {
                let anew = xl.introduce(blueprint(name)).unwrap();
                begun(&mut story, name, anew);
            }
        }
    }
    let count = |of: &str| story.values().flatten().filter(|line| line.starts_with(of)).count();
    let (starts, stops) = (count("started"), count("stopped"));
    told.until(starts, started).await;
    told.until(stops, stopped).await;
    told.nothing().await;
    told.check(&daemon);

    let mut heard = Story::new();
    for event in told.all.iter().filter(|event| started(event) || stopped(event)) {
        let (domain, change) = (event.domain().unwrap(), event.change().unwrap());
        let cause = match change.cause() {
            "" => String::new(),
            cause => format!(" ({cause})"),
        };
        let line = format!("{} {}{cause}", change.as_str(), domain.id().unwrap());
        heard.entry(domain.uuid()).or_default().push(line);
    }
    assert_eq!(heard, story);
    assert_eq!(told.all.iter().filter(|event| asked(event)).count(), asked_so_far);
    assert!(told.all.iter().all(|event| !event.is_marker()));
}

fn uuid_of(name: &str) -> Uuid {
    let hash = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(0x1_0000_0000_01b3);
    Uuid::from_u128(name.bytes().fold(0x1234_5678_9abc_def0_0000_0001_0000_0001, hash))
}
