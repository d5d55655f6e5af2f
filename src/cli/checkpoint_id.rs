//! A checkpoint's id as an argument.

use crate::types::CheckpointId;

/// Parses a checkpoint's id, or the name `kith@ID` that answers give to its model; the error says where to find one.
pub(crate) fn checkpoint_id(text: &str) -> Result<CheckpointId, String> {
    let id = text.strip_prefix("kith@").unwrap_or(text);
    id.parse().map_err(|_| {
        "a checkpoint's id looks like 0197a3c2-7d5e-7c11-9f6b-2f1f0c8d4e5a: \
         `kith checkpoint list` shows them"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_be_written_as_answers_name_its_model() {
        let id = "0197a3c2-7d5e-7c11-9f6b-2f1f0c8d4e5a";
        assert_eq!(checkpoint_id(&format!("kith@{id}")), checkpoint_id(id));
        let refused = checkpoint_id("kith").unwrap_err();
        assert!(refused.contains("kith checkpoint list"), "{refused}");
    }
}
