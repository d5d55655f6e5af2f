//! The presets of `[augment]`: complete sets of its values, as a layer between the defaults and what the user sets.

use toml::{Table, Value};

use super::tables::find;

/// A table for each preset.
const PRESETS: &str = include_str!("../../config/presets.toml");

/// The layer of the preset that `settings` name: `[augment]` with its values. Empty for an unknown name, which is refused as any unknown choice is.
pub(super) fn layer(settings: &Table) -> String {
    let name = find(settings, "augment.preset").and_then(Value::as_str);
    let mut presets: Table = toml::from_str(PRESETS).expect("a test reads the presets");
    let mut layer = Table::new();
    if let Some(values) = name.and_then(|name| presets.remove(name)) {
        layer.insert("augment".to_owned(), values);
    }
    layer.to_string()
}

#[cfg(test)]
mod tests {
    use kith_pixels::Preset;

    use super::*;

    #[test]
    fn every_preset_is_complete_and_photo_is_the_default() {
        let defaults: Table = toml::from_str(include_str!("../../config/default.toml")).unwrap();
        let mut augment = defaults["augment"].as_table().unwrap().clone();
        assert_eq!(augment.remove("preset").unwrap().as_str(), Some("photo"));
        let presets: Table = toml::from_str(PRESETS).unwrap();
        let mut names = Preset::ALL.map(Preset::name);
        names.sort_unstable();
        assert!(presets.keys().eq(names), "{presets:?}");
        for (name, values) in &presets {
            let values = values.as_table().unwrap();
            assert!(values.keys().eq(augment.keys()), "{name}: {values:?}");
        }
        assert_eq!(presets["photo"].as_table(), Some(&augment));
    }
}
