//! `kith augment preview`: the sheet that it writes.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use image::{Rgba, RgbaImage};

const SIDE: u32 = 32;

/// A blue disc on nothing.
fn disc(path: &Path) {
    let image = RgbaImage::from_fn(60, 60, |x, y| {
        let inside = x.abs_diff(30).pow(2) + y.abs_diff(30).pow(2) < 400;
        Rgba([20, 40, 200, if inside { 255 } else { 0 }])
    });
    image.save(path).unwrap();
}

fn preview(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kith"));
    command.current_dir(folder).args(["augment", "preview"]);
    command.args(["--set", "encoder.side=32"]).args(arguments);
    command.output().unwrap()
}

/// The sheet's bytes.
fn sheet(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = preview(folder, &[arguments, &["--output", "sheet.png"]].concat());
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    fs::read(folder.join("sheet.png")).unwrap()
}

#[test]
fn a_sheet_has_a_row_an_image_the_plain_one_first_and_depends_on_seed_and_preset() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    disc(&folder.join("a.png"));
    disc(&folder.join("b.png"));
    let images = ["a.png", "b.png", "--views", "3"];
    let icon = [&images[..], &["--preset", "icon"]].concat();
    let first = sheet(folder, &icon);
    let decoded = image::load_from_memory(&first).unwrap().into_rgb8();
    // Four columns and two rows, 4 pixels around and between.
    assert_eq!(
        decoded.dimensions(),
        (4 * (SIDE + 4) + 4, 2 * (SIDE + 4) + 4)
    );
    for row in 0..2 {
        let top = 4 + row * (SIDE + 4);
        // The plain view: white where nothing is, and the disc.
        assert_eq!(decoded.get_pixel(4, top).0, [255; 3]);
        assert_eq!(
            decoded.get_pixel(4 + SIDE / 2, top + SIDE / 2).0,
            [20, 40, 200]
        );
    }
    assert_eq!(sheet(folder, &icon), first);
    assert_ne!(
        sheet(folder, &[&icon[..], &["--seed", "2"]].concat()),
        first
    );
    assert_ne!(sheet(folder, &images), first, "photo");
    let set = ["--set", "augment.preset=icon"];
    assert_eq!(sheet(folder, &[&images[..], &set].concat()), first);
}

#[test]
fn a_sheet_that_would_be_too_large_or_replace_an_input_is_refused_and_so_is_a_name_that_is_no_preset()
 {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    disc(&folder.join("a.png"));
    let refused = |arguments: &[&str]| {
        let output = preview(folder, arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let list: String = (0..1000).map(|name| format!("{name}.png\n")).collect();
    fs::write(folder.join("list.txt"), list).unwrap();
    let many = refused(&["list.txt", "--views", "32", "--output", "sheet.png"]);
    assert!(many.contains("name fewer of the 1000 images"), "{many}");
    for input in ["a.png", "./a.png"] {
        let same = refused(&[input, "--output", "a.png"]);
        assert!(same.contains("name another --output"), "{same}");
    }
    for name in ["sheet.jpg", "sheet"] {
        let other = refused(&["a.png", "--output", name]);
        assert!(other.contains("end with .png"), "{other}");
        assert!(!folder.join(name).exists());
    }
    let unknown = refused(&["a.png", "--output", "b.png", "--preset", "emoji"]);
    assert!(
        unknown.contains("photo, icon, document, product"),
        "{unknown}"
    );
    fs::write(folder.join("text.png"), "no image").unwrap();
    let broken = refused(&["text.png", "--output", "sheet.png"]);
    assert!(broken.contains("text.png cannot be read"), "{broken}");
}
