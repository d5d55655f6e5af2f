//! Makes, finds and revokes keys.

use jiff::Timestamp;
use uuid::Uuid;

use super::{KeyError, KeyRow, Scope, Secret};
use crate::db::{Db, DbError};

/// Most keys in use: each request is compared with all of them.
const MAX_KEYS: usize = 1000;
/// Most bytes of a name.
const MAX_NAME: usize = 64;

/// A key to make.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What people call it.
    pub name: String,
    /// What its holder may do.
    pub scope: Scope,
    /// From when on it is refused; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// Makes a key. Its text is nowhere but in the answer.
pub async fn create(db: &Db, new: NewKey) -> Result<(KeyRow, Secret), KeyError> {
    check_name(&new.name)?;
    let now = Timestamp::now();
    if let Some(at) = new.expires_at
        && at <= now
    {
        return Err(KeyError::Past(at));
    }
    let secret = Secret::random()
        .map_err(|error| DbError::Sql(format!("the system gives no random numbers: {error}")))?;
    let row = KeyRow {
        id: Uuid::now_v7(),
        name: new.name,
        scope: new.scope,
        sha256: secret.sha256(),
        created_at: now,
        expires_at: new.expires_at,
        revoked_at: None,
    };
    db.insert_key(&row, MAX_KEYS).await?;
    Ok((row, secret))
}

/// The key with an id, or the key in use with a name.
pub async fn find(db: &Db, id_or_name: &str) -> Result<KeyRow, KeyError> {
    let id: Option<Uuid> = id_or_name.parse().ok();
    let wanted = |key: &KeyRow| match id {
        Some(id) => key.id == id,
        None => key.name == id_or_name && key.revoked_at.is_none(),
    };
    let keys = db.keys().await?;
    let found = keys.into_iter().find(wanted);
    found.ok_or_else(|| KeyError::NotFound(id_or_name.to_owned()))
}

/// Revokes a key by its id or name. One that is revoked already stays as it is.
pub async fn revoke(db: &Db, id_or_name: &str) -> Result<KeyRow, KeyError> {
    let key = find(db, id_or_name).await?;
    db.revoke_key(key.id, Timestamp::now()).await?;
    find(db, &key.id.to_string()).await
}

/// Names are written into logs and given as arguments: plain characters only, and nothing that could be an id.
fn check_name(name: &str) -> Result<(), KeyError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    let valid = (1..=MAX_NAME).contains(&name.len()) && name.chars().all(plain);
    if valid && !name.starts_with('-') && name.parse::<Uuid>().is_err() {
        return Ok(());
    }
    Err(KeyError::BadName(name.to_owned()))
}
