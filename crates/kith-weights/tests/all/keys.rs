//! Keys: prefixes go, foreign heads are left out, what does not fit is named, other networks are refused by name.

use kith_nn::PLACES;
use kith_weights::Weights;

use crate::files::{Arrays, file, insert, narrow, pth, read, refusal, safetensors, training_pth};

/// `arrays` with changed names.
fn renamed(arrays: Arrays, name: impl Fn(&str) -> String) -> Arrays {
    arrays
        .into_iter()
        .map(|(key, array)| (name(&key), array))
        .collect()
}

/// All weights that come out of a file.
fn values(bytes: &[u8]) -> Vec<kith_nn::NamedArray> {
    let weights = read(bytes).unwrap();
    weights.arrays(&weights.projection(64))
}

#[test]
fn both_formats_and_every_prefix_give_the_same_weights() {
    let expected = values(&safetensors(&narrow()));
    assert_eq!(expected.len(), 2 * 24);
    assert_eq!(values(&pth(&narrow())), expected);
    for key in ["state_dict", "model_state_dict", "model"] {
        assert_eq!(values(&training_pth(&narrow(), key)), expected, "{key}");
    }
    for prefix in ["module.", "backbone.", "model.", "module.model.backbone."] {
        let prefixed = renamed(narrow(), |key| format!("{prefix}{key}"));
        assert_eq!(values(&safetensors(&prefixed)), expected, "{prefix}");
    }
}

#[test]
fn heads_of_other_tasks_are_left_out_and_named() {
    let mut arrays = renamed(narrow(), |key| format!("backbone.{key}"));
    insert(&mut arrays, "head.0.weight", vec![4, 64], |x| x);
    insert(&mut arrays, "projector.weight", vec![4, 64], |x| x);
    let weights = read(&safetensors(&arrays)).unwrap();
    let dropped = [
        "backbone.fc.bias",
        "backbone.fc.weight",
        "head.0.weight",
        "projector.weight",
    ];
    assert_eq!(weights.dropped(), dropped);
}

#[test]
fn names_that_are_left_out_are_bounded_in_number_and_length_and_printable() {
    let mut arrays = narrow();
    for number in 0..100 {
        let name = format!("head.\x1b[31m\u{202e}{}{number:03}", "x".repeat(1000));
        insert(&mut arrays, &name, vec![1], |x| x);
    }
    let weights = read(&safetensors(&arrays)).unwrap();
    let dropped = weights.dropped();
    assert_eq!(dropped.len(), 65);
    assert_eq!(dropped[64], "and 38 more", "two are of the classifier");
    for name in dropped {
        let is_plain = |one: char| !one.is_control() && one != '\u{202e}';
        assert!(name.chars().all(is_plain), "{name:?}");
        assert!(name.chars().count() <= 201, "{name}");
    }
}

#[test]
fn another_width_is_refused_before_any_array_is_read() {
    let mut arrays = narrow();
    let stem = arrays.get_mut("conv1.weight").unwrap();
    stem.1.fill(f32::NAN);
    let (_folder, path) = file(&safetensors(&arrays));
    let refused = Weights::read_width(&path, 16).unwrap_err().to_string();
    assert_eq!(refused, "its network has width 8, but encoder.width is 16");
    let refused = Weights::read_width(&path, 8).unwrap_err().to_string();
    assert!(refused.contains("finite"), "{refused}");
}

#[test]
fn the_hash_is_that_of_the_files_bytes() {
    use sha2::{Digest, Sha256};
    for bytes in [safetensors(&narrow()), pth(&narrow())] {
        let expected: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(read(&bytes).unwrap().sha256(), expected);
    }
}

#[test]
fn missing_unexpected_and_misshapen_keys_are_each_named() {
    let mut arrays = narrow();
    arrays.remove("layer3.1.bn2.running_var");
    arrays.remove("conv1.weight");
    insert(&mut arrays, "layer2.0.se.weight", vec![3], |x| x);
    insert(
        &mut arrays,
        "layer4.1.conv2.weight",
        vec![64, 64, 1, 1],
        |x| x,
    );
    // Without the stem the width is not known.
    insert(&mut arrays, "conv1.weight", vec![8, 4, 7, 7], |x| x);
    let refused = refusal(&safetensors(&arrays));
    for named in [
        "missing: layer3.1.bn2.running_var;",
        "unexpected: layer2.0.se.weight;",
        "conv1.weight [8, 4, 7, 7] (must be [8, 3, 7, 7])",
        "layer4.1.conv2.weight [64, 64, 1, 1] (must be [64, 64, 3, 3])",
    ] {
        assert!(refused.contains(named), "{refused}");
    }
}

#[test]
fn a_long_list_of_keys_is_cut() {
    let refused = refusal(&safetensors(&Arrays::from([(
        "x".to_owned(),
        (vec![1], vec![0.0]),
    )])));
    assert!(refused.contains("conv1.weight"), "{refused}");
    assert!(refused.contains("more"), "{refused}");
    assert!(refused.len() < 600, "{refused}");
}

#[test]
fn other_networks_are_refused_by_their_name() {
    let deeper = |blocks: [usize; 4], bottleneck: bool| {
        let mut arrays = narrow();
        for (stage, count) in blocks.into_iter().enumerate() {
            for block in 0..count {
                let key = |part: &str| format!("layer{}.{block}.{part}.weight", stage + 1);
                insert(&mut arrays, &key("conv1"), vec![1], |x| x);
                if bottleneck {
                    insert(&mut arrays, &key("conv3"), vec![1], |x| x);
                }
            }
        }
        refusal(&safetensors(&arrays))
    };
    for (blocks, bottleneck, name) in [
        ([3, 4, 6, 3], false, "ResNet-34"),
        ([3, 4, 6, 3], true, "ResNet-50"),
        ([3, 4, 23, 3], true, "ResNet-101"),
        ([3, 8, 36, 3], true, "ResNet-152"),
        ([2, 2, 4, 2], false, "[2, 2, 4, 2] blocks"),
    ] {
        let refused = deeper(blocks, bottleneck);
        assert!(refused.contains(name), "{refused}");
    }
    let mut small = narrow();
    insert(&mut small, "conv1.weight", vec![8, 3, 3, 3], |x| x);
    assert!(refusal(&safetensors(&small)).contains("small images"));
    let mut deep = narrow();
    insert(&mut deep, "conv1.0.weight", vec![8, 3, 3, 3], |x| x);
    assert!(refusal(&safetensors(&deep)).contains("resnet18d"));
}

#[test]
fn values_that_are_not_finite_are_refused_by_the_name_of_their_array() {
    for (key, value) in [
        ("layer2.0.downsample.0.weight", f32::NAN),
        ("bn1.running_var", -1.0),
    ] {
        let mut arrays = narrow();
        arrays.get_mut(key).unwrap().1[3] = value;
        let refused = refusal(&safetensors(&arrays));
        let layer = key.split('.').next().unwrap().replace("bn1", "conv1");
        assert!(
            refused.contains(&layer) && refused.contains("finite"),
            "{refused}"
        );
    }
}

#[test]
fn a_projection_and_a_hidden_layer_of_kith_are_kept() {
    let mut arrays = narrow();
    insert(&mut arrays, "fc.weight", vec![64, 64], |x| x);
    insert(&mut arrays, "fc.bias", vec![64], |x| x);
    insert(&mut arrays, "projection.weight", vec![16, 64], |x| x);
    insert(&mut arrays, "projection.bias", vec![16], |x| x);
    // A file from before places were read, one from before they were on two grids, and one from after.
    for parts in 0..=PLACES.len() {
        if let Some(part) = parts.checked_sub(1).map(|last| PLACES[last]) {
            let [weight, bias] = ["weight", "bias"].map(|array| format!("{}.{array}", part.name));
            insert(&mut arrays, &weight, part.shape(8, 16).to_vec(), |x| x);
            insert(&mut arrays, &bias, vec![16], |x| x);
        }
        let weights = read(&safetensors(&arrays)).unwrap();
        assert_eq!(weights.dropped(), [""; 0]);
        let kept = weights.arrays(&weights.projection(16));
        for (name, (_, data)) in arrays.iter().filter(|(name, _)| is_head(name)) {
            let found = kept.iter().find(|array| array.name == *name).unwrap();
            assert_eq!(&found.data, data, "{name}");
        }
        assert_ne!(
            weights.projection(8).to_string(),
            weights.projection(16).to_string()
        );
        // Another projection reads no places.
        let other = weights.arrays(&weights.projection(8));
        for (kept, read) in [(&kept, parts), (&other, 0)] {
            for (number, part) in PLACES.iter().enumerate() {
                let weight = format!("{}.weight", part.name);
                let found = kept.iter().find(|array| array.name == weight).unwrap();
                assert_eq!(found.data.iter().any(|value| *value != 0.0), number < read);
            }
        }
    }
}

#[test]
fn a_projection_whose_places_do_not_fit_is_another_networks() {
    for (name, weight, bias) in [
        ("places", vec![16, 64, 2, 2], 16),
        ("places", vec![16, 32, 2, 2], 8),
        ("fine_places", vec![16, 8, 2, 2], 16),
    ] {
        let mut arrays = narrow();
        insert(&mut arrays, "projection.weight", vec![16, 64], |x| x);
        insert(&mut arrays, "projection.bias", vec![16], |x| x);
        insert(&mut arrays, &format!("{name}.weight"), weight, |x| x);
        insert(&mut arrays, &format!("{name}.bias"), vec![bias], |x| x);
        let weights = read(&safetensors(&arrays)).unwrap();
        let head: Vec<_> = arrays.keys().filter(|name| is_head(name)).collect();
        assert_eq!(weights.dropped().iter().collect::<Vec<_>>(), head);
    }
}

fn is_head(name: &str) -> bool {
    let layer = name.split('.').next();
    layer.is_some_and(|layer| ["fc", "projection", "places", "fine_places"].contains(&layer))
}
