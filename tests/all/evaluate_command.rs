//! `kith evaluate`: one checkpoint, and two that are compared on the same images.

use std::{fs, path::Path};

use image::{Rgb, RgbImage};
use kith::types::CheckpointId;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    program::{complaint, images, kith, text, told},
    support::{Served, data_uri, png, settings},
};

/// A data folder whose server has stopped, with its first checkpoint and one that maps all images to one vector.
struct Folder {
    folder: TempDir,
    sound: CheckpointId,
    collapsed: CheckpointId,
}

impl Folder {
    async fn new() -> Self {
        let served = Served::start(&[]).await;
        let sound = served.app.serving.live().unwrap().id;
        let collapsed = served
            .write_changed(|snapshot| {
                for array in &mut snapshot.model {
                    let value = match array.name.as_str() {
                        "projection.weight" => 0.0,
                        "projection.bias" => 1.0,
                        _ => continue,
                    };
                    array.data.fill(value);
                }
            })
            .await;
        let folder = served.stop().await;
        Self {
            folder,
            sound,
            collapsed,
        }
    }

    fn data(&self) -> String {
        let settings = settings(&self.folder, &[]);
        text(&settings.storage.data_dir).to_owned()
    }

    fn evaluate(&self, id: CheckpointId, more: &[&str]) -> Value {
        let (id, data) = (id.to_string(), self.data());
        let asked = ["evaluate", "--json", "--data-dir", &data, "--checkpoint"];
        let answer = told(&[&asked[..], &[id.as_str()], more].concat());
        serde_json::from_str(&answer).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_checkpoints_are_compared_on_the_same_queries() {
    let (folder, images) = (Folder::new().await, images(12));
    let (queries, collapsed) = (text(images.path()), folder.collapsed.to_string());
    let lists = ["--query", queries, "--gallery", queries];
    let alone = folder.evaluate(folder.sound, &lists);
    assert_eq!(alone["anchor_to_positive"]["recall_at_1"], 1.0);
    assert_eq!(alone.get("against"), None);

    let asked = [&lists[..], &["--against", &collapsed]].concat();
    let found = folder.evaluate(folder.sound, &asked);
    let other = &found["against"];
    assert_eq!(found["checkpoint"], folder.sound.to_string());
    assert_eq!(other["checkpoint"], collapsed);
    assert_eq!(other["anchor_to_positive"]["recall_at_1"], 0.0);
    let difference = &other["differences"]["recall_at_1"];
    // Each image is a query in both directions, and both fail together.
    assert_eq!(difference["units"], 12);
    for end in ["difference", "low", "high"] {
        assert_eq!(difference[end], 1.0, "{difference}");
    }
    // All twelve signs agree: 2 / 2¹².
    assert_eq!(difference["p_value"], 2.0 / 4096.0);

    let (id, data) = (folder.sound.to_string(), folder.data());
    let named = ["evaluate", "--data-dir", &data, "--checkpoint", &id];
    let table = told(&[&named[..], &asked[..]].concat());
    let last = table.lines().last().unwrap();
    assert!(last.starts_with("recall@1"), "{table}");
    assert!(last.contains("+1.0000  95 % interval +1.0000 to +1.0000; p = 0.000; 12 units"));
}

/// Images of three colours that differ a little, in a sub-folder for each.
fn colours(folder: &Path, from: u8, count: u8) {
    let colours = [[250, 60, 60], [60, 250, 60], [60, 60, 250]];
    for (name, colour) in ["red", "green", "blue"].into_iter().zip(colours) {
        fs::create_dir_all(folder.join(name)).unwrap();
        for number in from..from + count {
            let image = RgbImage::from_pixel(40, 40, Rgb(colour.map(|value| value - 2 * number)));
            image
                .save(folder.join(name).join(format!("{number}.png")))
                .unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_are_told_by_neighbours_and_a_probe_without_a_server_or_its_data() {
    let folder = Folder::new().await;
    let images = tempfile::tempdir().unwrap();
    let at = |name: &str| images.path().join(name);
    colours(&at("seen"), 0, 5);
    colours(&at("new"), 5, 2);
    let (seen, new) = (at("seen"), at("new"));
    let collapsed = folder.collapsed.to_string();
    let asked = [
        "--labels",
        text(&seen),
        "--test",
        text(&new),
        "--neighbours",
        "3",
        "--against",
        &collapsed,
    ];
    let found = folder.evaluate(folder.sound, &asked);
    for (field, value) in [
        ("train", 15),
        ("test", 6),
        ("classes", 3),
        ("neighbours", 3),
    ] {
        assert_eq!(found[field], value, "{field}");
    }
    let other = &found["against"];
    for figure in ["neighbour_accuracy", "probe_accuracy"] {
        assert_eq!(found[figure], 1.0, "{figure}");
        // Equal vectors have one class, that of two test images of six.
        assert_eq!(other[figure], 2.0 / 6.0, "{figure}");
        let difference = &other["differences"][figure];
        assert_eq!(difference["units"], 6);
        // Four images differ, all in one direction: 2 / 2⁴.
        assert_eq!(difference["p_value"], 0.125, "{difference}");
        let ends = ["low", "difference", "high"].map(|end| difference[end].as_f64().unwrap());
        assert!(ends.is_sorted() && ends[0] < ends[2], "{difference}");
    }
    assert_eq!(folder.evaluate(folder.sound, &asked), found);

    // Without a list to test on, one image of the five of each class.
    let found = folder.evaluate(folder.sound, &["--labels", text(&seen)]);
    assert_eq!((&found["train"], &found["test"]), (&12.into(), &3.into()));

    // A checkpoint's own folder needs no data folder.
    let own = Path::new(&folder.data()).join("blobs/checkpoints");
    let own = own.join(folder.sound.to_string());
    let (own, gone) = (text(&own), text(&seen));
    let alone = ["evaluate", "--checkpoint", own, "--labels", gone];
    assert!(told(&alone).contains("linear probe"));
}

#[test]
fn questions_that_exclude_each_other_or_have_no_answer_are_refused() {
    let images = images(3);
    let folder = text(images.path());
    let both = [
        "evaluate",
        "--labels",
        folder,
        "--query",
        folder,
        "--gallery",
        folder,
    ];
    assert_eq!(kith(&both).status.code(), Some(2));
    assert_eq!(kith(&["evaluate", "--test", folder]).status.code(), Some(2));
    // Each image has a name of its own, and so a class of its own.
    let refused = complaint(&["evaluate", "--labels", folder]);
    assert!(refused.contains("no class has two images"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_key_and_seed_change_what_is_found() {
    let folder = Folder::new().await;
    let images = tempfile::tempdir().unwrap();
    let at = |name: &str| images.path().join(name);
    colours(&at("seen"), 0, 1);
    let list = at("list.csv");
    let rows = ["red", "green"].map(|name| format!("seen/{name}/0.png,{name}\n"));
    fs::write(&list, format!("path,colour\n{}", rows.concat())).unwrap();
    let list = text(&list);
    let asked = ["--query", list, "--gallery", list, "--key", "colour"];
    let found = folder.evaluate(folder.sound, &asked);
    assert_eq!(found["anchor_to_positive"]["recall_at_1"], 1.0);

    // Classes that have nothing to do with the images: how many are right depends on who is asked, and on how many vote.
    for seed in 0..60 {
        let class = at("mixed").join(if seed % 2 == 0 { "even" } else { "odd" });
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join(format!("{seed}.png")), png(seed)).unwrap();
    }
    let mixed = at("mixed");
    let right = |option: &str, value: &str| {
        let asked = ["--labels", text(&mixed), option, value];
        folder.evaluate(folder.sound, &asked)["neighbour_accuracy"].clone()
    };
    for (option, values) in [
        ("--seed", ["1", "2", "3"]),
        ("--neighbours", ["1", "5", "30"]),
    ] {
        let found = values.map(|value| right(option, value));
        assert!(
            found.iter().any(|one| *one != found[0]),
            "{option}: {found:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_held_out_pairs_are_used_as_are_asked_for() {
    let served = Served::start(&["pairs.holdout_share=0.9"]).await;
    for seed in 0..12 {
        let (anchor, positive) = (data_uri(&png(2 * seed)), data_uri(&png(2 * seed + 1)));
        let pair = json!({"anchor": {"image": anchor}, "positive": {"image": positive}});
        served.post("/v1/pairs", &json!({"pairs": [pair]})).await;
    }
    let held_out = served.app.checkpoints.held_out_set(100).await.unwrap();
    let held_out = held_out.anchors.len();
    assert!(held_out > 4, "{held_out}");
    let folder = served.stop().await;
    let data = settings(&folder, &[]).storage.data_dir;
    for (more, pairs) in [(&["--pairs", "4"][..], 4), (&[], held_out)] {
        let asked = ["evaluate", "--json", "--data-dir", text(&data)];
        let found: Value = serde_json::from_str(&told(&[&asked[..], more].concat())).unwrap();
        assert_eq!(found["pairs"], pairs, "{found}");
    }
}
