//! What is filed under an id that a file had before it was copied or restored.

use crate::support::cli::Device;
use crate::support::fleet::{ALL, Fleet, ITEMS, conflicts, id};

fn backup(device: &Device) -> Vec<u8> {
    let at_rest = device.rows("pragma wal_checkpoint(truncate)");
    assert_eq!(at_rest[0][0], "0", "nobody else holds the file");
    std::fs::read(device.db()).expect("the file")
}

fn restore(device: &Device, bytes: &[u8]) {
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(device.folder().join(format!("app.db{end}")));
    }
    std::fs::write(device.db(), bytes).expect("the file again");
}

#[test]
fn conflicts_under_a_former_id_are_listed() {
    let fleet = Fleet::new(ITEMS);
    let (a, b) = (fleet.device("a"), fleet.device("b"));
    a.sql("insert into items values ('r', 'first', 0), ('s', 'first', 0)");
    fleet.converge(&[&a, &b], ALL);
    let before = backup(&a);
    a.sql("update items set body = 'sent'");
    a.json(&["now", "--push"]);
    let former = id(&a);
    restore(&a, &before);

    // Meets what the file sent in its former life, and wins over it.
    b.sql("update items set body = 'later' where id = 'r'");
    b.json(&["now"]);
    // The restored file meets itself.
    a.sql("update items set body = 'restored' where id = 's'");
    a.json(&["now"]);
    a.json(&["now"]);
    assert_ne!(id(&a), former);
    let listed = conflicts(&a);
    assert_eq!(listed.len(), 2, "{listed:#?}");
    let of = |key: &str| {
        let found = listed.iter().find(|c| c["pk"][0] == key);
        found.unwrap_or_else(|| panic!("none of {key}: {listed:#?}"))
    };
    let (r, s) = (of("r"), of("s"));
    assert_eq!(
        (
            &r["winner"],
            &r["local"]["body"],
            &r["remote"]["body"],
            &r["own"]
        ),
        (
            &"remote".into(),
            &"sent".into(),
            &"later".into(),
            &false.into()
        ),
        "{r:#}"
    );
    assert_eq!(
        (
            &s["winner"],
            &s["local"]["body"],
            &s["remote"]["body"],
            &s["own"]
        ),
        (
            &"local".into(),
            &"restored".into(),
            &"sent".into(),
            &true.into()
        ),
        "{s:#}"
    );
    assert_eq!(s["remote_device"], former.as_str());
    let human = a
        .tw(&["conflicts", "show", s["id"].as_str().expect("an id")])
        .ok();
    assert!(human.stdout.contains("former id"), "{human:#?}");
    assert_eq!(conflicts(&b).len(), 1);
    fleet.converge(&[&a, &b], ALL);
}
