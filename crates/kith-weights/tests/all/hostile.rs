//! Hostile and broken files are refused with a sentence, without a panic and without much memory.

use std::io::Write;

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::files::{Pickle, archive, file, narrow, pth, read, refusal, safetensors};

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    for whole in [safetensors(&narrow()), pth(&narrow())] {
        for share in [0, 1, 7, 50, 500, 900, 999] {
            let cut = &whole[..whole.len() * share / 1000];
            assert!(read(cut).is_err(), "{share}");
        }
        assert!(read(&whole[..whole.len() - 1]).is_err());
    }
}

#[test]
fn changed_bytes_never_panic() {
    for whole in [safetensors(&narrow()), pth(&narrow())] {
        // The header of the one, the table and the pickle of the other: the rest is values.
        let places = (0..400).chain(whole.len() - 400..whole.len());
        for place in places.step_by(3) {
            let mut changed = whole.clone();
            changed[place] ^= 0x55;
            // Some changes are harmless, such as one in a comment.
            drop(read(&changed));
        }
    }
}

#[test]
fn changed_instructions_of_a_pickle_never_panic() {
    let mut pickle = Pickle::new();
    pickle.raw(b"}(");
    pickle.text("conv1.weight");
    pickle.tensor("0", &[8, 3, 7, 7], 1176);
    pickle.raw(b"u.");
    for (place, byte) in
        (2..pickle.0.len()).flat_map(|place| (0..=255).map(move |byte| (place, byte)))
    {
        if (usize::from(byte) + place) % 17 != 0 {
            continue;
        }
        let mut changed = pickle.0.clone();
        changed[place] = byte;
        assert!(read(&archive(&changed, vec![vec![0; 16]])).is_err());
    }
}

/// A safetensors file with that header and 64 bytes of values.
fn with_header(header: &str) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&[0; 64]);
    bytes
}

#[test]
fn headers_that_promise_too_much_are_refused() {
    let mut huge = u64::MAX.to_le_bytes().to_vec();
    huge.extend_from_slice(b"{}");
    assert!(refusal(&huge).contains("header"));
    let array = |name: &str, from: u64, to: u64| {
        format!(
            r#""{name}":{{"dtype":"F32","shape":[{}],"data_offsets":[{from},{to}]}}"#,
            (to - from) / 4
        )
    };
    let overlapping = format!("{{{},{}}}", array("a", 0, 48), array("b", 16, 64));
    let beyond = format!("{{{}}}", array("a", 0, 1 << 40));
    let shape = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,64]}}"#;
    for header in [overlapping.as_str(), &beyond, shape, "{", "[]", "{\"a\":1}"] {
        let refused = refusal(&with_header(header));
        assert!(refused.contains("no .safetensors or .pth"), "{refused}");
    }
}

#[test]
fn a_pickle_that_calls_is_refused_by_what_it_calls() {
    let calls: [(&[u8], &str); 3] = [
        (b"cos\nsystem\n(X\x02\x00\x00\x00lstR.", "os.system"),
        (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "builtins.eval"),
        (b"ctorch.nn\nLinear\n)\x81.", "torch.nn.Linear"),
    ];
    for (instructions, called) in calls {
        let mut pickle = Pickle::new();
        pickle.raw(instructions);
        let refused = refusal(&archive(&pickle.0, Vec::new()));
        assert!(
            refused.contains(called) && refused.contains("never run"),
            "{refused}"
        );
    }
}

#[test]
fn pickles_that_grow_or_nest_without_end_are_refused() {
    // A text of four gigabytes.
    let mut long = Pickle::new();
    long.raw(b"X\xff\xff\xff\xffabc.");
    // Each step doubles what the memo holds.
    let mut doubling = Pickle::new();
    doubling.raw(b"Nq\x00");
    for _ in 0..64 {
        doubling.raw(b"h\x00h\x00\x86q\x00");
    }
    doubling.raw(b".");
    let mut nested = Pickle::new();
    nested.raw(b"N");
    nested.raw(&b"\x85".repeat(1 << 20));
    nested.raw(b".");
    // A long text that is referred to again and again.
    let mut repeated = Pickle::new();
    repeated.text(&"x".repeat(100_000));
    repeated.raw(b"q\x00");
    repeated.raw(&b"h\x00".repeat(200_000));
    repeated.raw(b".");
    // A class with a long name that is referred to again and again: thirty megabytes in all.
    let mut class = Pickle::new();
    class.raw(b"ctorch\n");
    class.raw(&b"x".repeat(100_000));
    class.raw(b"Storage\nq\x00");
    class.raw(&b"h\x00".repeat(300));
    class.raw(b".");
    for (pickle, why) in [
        (long, "cut off"),
        (doubling, "repeated"),
        (nested, "nested"),
        (repeated, "repeated"),
        (class, "never run"),
    ] {
        let refused = refusal(&archive(&pickle.0, Vec::new()));
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn tensors_outside_their_storage_are_refused() {
    let mut arrays = narrow();
    let whole = pth(&arrays);
    assert!(read(&whole).is_ok());
    // The storage of the first array is cut short.
    let (name, (shape, data)) = arrays
        .iter()
        .next()
        .map(|(n, a)| (n.clone(), a.clone()))
        .unwrap();
    arrays.insert(name.clone(), (shape, data[..data.len() - 1].to_vec()));
    let refused = refusal(&pth(&arrays));
    assert!(
        refused.contains(&name) && refused.contains("outside"),
        "{refused}"
    );
}

#[test]
fn arrays_of_more_values_than_any_file_are_refused_whatever_storage_they_share() {
    let mut arrays = narrow();
    let mut pickle = Pickle::new();
    pickle.raw(b"}(");
    arrays.insert(
        "projection.weight".to_owned(),
        (vec![1 << 40, 64], vec![0.0]),
    );
    arrays.insert("projection.bias".to_owned(), (vec![1 << 40], vec![0.0]));
    for (name, (shape, _)) in &arrays {
        pickle.text(name);
        pickle.tensor("0", shape, 1);
    }
    pickle.raw(b"u.");
    let refused = refusal(&archive(&pickle.0, vec![vec![0; 4]]));
    assert!(refused.contains("268435456"), "{refused}");
}

#[test]
fn a_compressed_part_is_refused_before_it_unfolds() {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored).unwrap();
    zip.write_all(b"\x80\x02}.").unwrap();
    let mut bytes = zip.finish().unwrap().into_inner();
    // Deflated, says the table of the archive; nothing of it can be read without a decompressor.
    let table = bytes
        .windows(4)
        .rposition(|mark| mark == b"PK\x01\x02")
        .unwrap();
    bytes[table + 10] = 8;
    bytes[8] = 8;
    let refused = refusal(&bytes);
    assert!(refused.contains("data.pkl"), "{refused}");
}

#[test]
fn a_pickle_from_before_pytorch_1_6_is_answered_with_the_line_that_converts_it() {
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(!refusal(&tar).contains("torch.save"));
    tar[..8].copy_from_slice(b"sys_info");
    for old in [b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), tar] {
        let refused = refusal(&old);
        assert!(
            refused.contains("torch.save(torch.load('OLD.pth'"),
            "{refused}"
        );
    }
}

#[test]
fn what_is_no_file_of_weights_is_refused() {
    assert!(refusal(b"version https://git-lfs.github.com/spec/v1\n").contains("LFS"));
    assert!(refusal(b"").contains("eight bytes"));
    assert!(refusal(b"PK\x03\x04 and no more").contains("no .safetensors or .pth"));
    let (folder, path) = file(b"x");
    let of_folder = kith_weights::Weights::read(folder.path()).unwrap_err();
    assert!(of_folder.to_string().contains("regular file"));
    let missing = kith_weights::Weights::read(&path.with_extension("none")).unwrap_err();
    assert!(missing.to_string().contains("cannot be read"));
}

#[test]
fn a_header_whose_length_begins_like_a_pickle_is_read_as_a_header() {
    let header = " ".repeat(0x280);
    let refused = refusal(&with_header(&header));
    assert!(refused.contains("no .safetensors or .pth"), "{refused}");
}
