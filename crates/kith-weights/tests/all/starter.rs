//! The starter encoder, in a build that has it.

#[test]
fn the_starter_encoder_has_its_own_projection_to_128_values() {
    let Some(starter) = kith_weights::starter().unwrap() else {
        return;
    };
    assert_eq!(starter.width(), kith_weights::STARTER_WIDTH);
    assert_eq!(
        starter.projection(128).to_string(),
        "the file's own projection"
    );
    assert!(starter.dropped().is_empty());
    let arrays = starter.arrays(&starter.projection(128));
    assert_eq!(arrays.len(), 2 * 24);
    assert!(arrays.iter().all(kith_nn::NamedArray::is_finite));
}
