//! `vmferry validate --connect`: what `docs/providers/vsphere.md` says of it.

use serde_json::{Map, Value, json};

use crate::journey::Journey;
use crate::side::Kind;
use crate::support::{Crossing, Outcome, Place};

/// What it is not to say.
const WRONG: &str = "hunter2";

/// What is wrong with a migration, and what is said of it.
type Case<'c> = (&'c dyn Fn(&mut Crossing), &'c [&'c str]);

fn validate(journey: &Journey, crossing: &Crossing) -> Outcome {
    let file = journey.ferry.write("validated.yaml", &crossing.to_yaml());
    let file = file.display().to_string();
    journey.ferry.command(&["validate", "--connect", "-f", &file])
}

/// Asserts that all is found fit, or what is refused with which words; and that nothing is made anywhere.
#[track_caller]
fn told(journey: &Journey, cases: &[Case<'_>]) {
    let good = validate(journey, &journey.crossing());
    good.ready();
    let fit = "default/m: source, target and staging storage are fit for it";
    assert!(good.text.lines().any(|line| line == fit), "{}", good.text);
    for (change, words) in cases {
        let mut crossing = journey.crossing();
        change(&mut crossing);
        let refused = validate(journey, &crossing);
        refused.refused(1, words);
        assert!(
            refused.text.contains("VMMigration default/m: ") && !refused.text.contains(WRONG),
            "{}",
            refused.text
        );
    }
    journey.assert_left(&[]);
    assert_eq!(journey.from.sessions() + journey.to.sessions(), 0, "it did not log out");
    assert_eq!(journey.ferry.saved(), Vec::<String>::new());
}

/// The values of a Provider's Secret.
fn secrets<'c>(crossing: &'c mut Crossing, provider: &str) -> &'c mut Map<String, Value> {
    let name = format!("{provider}-access");
    let (_, data) = crossing.secrets.iter_mut().find(|(known, _)| *known == name).unwrap();
    data.as_object_mut().unwrap()
}

fn put(crossing: &mut Crossing, provider: &str, key: &str, value: &str) {
    secrets(crossing, provider).insert(key.to_owned(), json!(value));
}

#[test]
fn a_source_that_is_a_vcenter() {
    let journey = Journey::new(Kind::Vsphere, Kind::Proxmox, Place::nfs4());
    told(
        &journey,
        &[
            (
                &|with| put(with, "a", "password", WRONG),
                &[
                    "cannot log in to vSphere at https://127.0.0.1:",
                    "username and password",
                ],
            ),
            (
                &|with| put(with, "a", "thumbprint", &"00".repeat(32)),
                &["has the fingerprint ", ", not 00:00:", "thumbprint"],
            ),
            (
                &|with| put(with, "a", "thumbprint", "00:11"),
                &["cannot read fingerprint of the Secret", "40 or 64 hex digits"],
            ),
            (
                &|with| drop(secrets(with, "a").remove("ca.crt")),
                &["certificate", "ca.crt"],
            ),
            (
                &|with| *with = with.clone().endpoint("a", "https://127.0.0.1:1/sdk"),
                &["cannot connect to vSphere at https://127.0.0.1:1/sdk", "port 443"],
            ),
            (
                &|with| *with = with.clone().endpoint("a", "https://vcenter.invalid"),
                &["https://vcenter.invalid/sdk", "check the address"],
            ),
            (
                &|with| with.spec["sourceName"] = json!("nobody"),
                &["cannot find VM \"nobody\" on vCenter 127.0.0.1:", "the user may see"],
            ),
            (
                &|with| put(with, "b", "token_secret", WRONG),
                &["Proxmox VE at 127.0.0.1:"],
            ),
        ],
    );
}

#[test]
fn a_target_that_is_a_host() {
    let journey = Journey::new(Kind::Libvirt, Kind::Esxi, Place::nfs4());
    told(
        &journey,
        &[
            (
                &|with| put(with, "b", "password", WRONG),
                &["cannot log in to vSphere at https://127.0.0.1:"],
            ),
            (
                &|with| with.spec["targetNetworkHints"] = json!([{ "name": "eth0", "network": "nowhere" }]),
                &["cannot use network \"nowhere\"", "VM Network"],
            ),
            (
                &|with| with.spec["targetStorageHint"] = json!("nothing"),
                &["cannot find datastore \"nothing\"", "LocalDS_0"],
            ),
            (
                &|with| *with = with.clone().endpoint("a", "qemu+unix:///system?socket=/nonexistent/a"),
                &["/nonexistent/a"],
            ),
        ],
    );
}
