//! Rows of API keys: one name for each key in use, a bound, and rows that stay.

use jiff::Timestamp;
use kith::{
    db::{Db, DbError, KeyRow, Scope},
    types::Sha256,
};

use super::{Fixture, open};

fn key(name: &str) -> KeyRow {
    KeyRow {
        id: uuid::Uuid::now_v7(),
        name: name.to_owned(),
        scope: Scope::Write,
        sha256: Sha256::digest(uuid::Uuid::now_v7().as_bytes()),
        created_at: Timestamp::now(),
        expires_at: Some(Timestamp::now()),
        revoked_at: None,
    }
}

#[tokio::test]
async fn a_name_is_free_again_once_its_key_is_revoked() {
    let Fixture { db, folder } = open().await;
    let path = folder.path().join("kith.db");
    assert!(!Db::had_keys_at(&path).await.unwrap());
    let first = key("shop");
    db.insert_key(&first, 2).await.unwrap();
    assert_eq!(db.keys().await.unwrap()[0], first);
    let twice = db.insert_key(&key("shop"), 2).await.unwrap_err();
    assert!(matches!(twice, DbError::KeyNameTaken(_)), "{twice}");

    let at = Timestamp::now();
    db.revoke_key(first.id, at).await.unwrap();
    db.revoke_key(first.id, Timestamp::now()).await.unwrap();
    assert_eq!(db.keys_in_use().await.unwrap(), []);
    assert_eq!(db.keys().await.unwrap()[0].revoked_at, Some(at));
    assert!(db.had_keys().await.unwrap());
    assert!(Db::had_keys_at(&path).await.unwrap());
    db.insert_key(&key("shop"), 2).await.unwrap();
    assert_eq!(db.keys().await.unwrap().len(), 2);
}

#[tokio::test]
async fn only_so_many_keys_are_in_use_at_once() {
    let Fixture {
        db,
        folder: _folder,
    } = open().await;
    let first = key("a");
    db.insert_key(&first, 2).await.unwrap();
    db.insert_key(&key("b"), 2).await.unwrap();
    let third = db.insert_key(&key("c"), 2).await.unwrap_err();
    assert!(matches!(third, DbError::TooManyKeys(2)), "{third}");
    db.revoke_key(first.id, Timestamp::now()).await.unwrap();
    db.insert_key(&key("c"), 2).await.unwrap();
}
