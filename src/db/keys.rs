//! Statements on API keys. A revoked key keeps its row.

use jiff::Timestamp;
use uuid::Uuid;

use super::{columns::KeyId, error::DbError, handle::Db, records::KeyRow};

impl Db {
    /// Stores a new key, unless its name is taken or `max` keys are in use.
    pub async fn insert_key(&self, key: &KeyRow, max: usize) -> Result<(), DbError> {
        let mut transaction = self.write().await?;
        let names: Vec<String> =
            sqlx::query_scalar("SELECT name FROM api_keys WHERE revoked_at IS NULL")
                .fetch_all(&mut *transaction)
                .await?;
        if names.contains(&key.name) {
            return Err(DbError::KeyNameTaken(key.name.clone()));
        }
        if names.len() >= max {
            return Err(DbError::TooManyKeys(max));
        }
        sqlx::query(
            "INSERT INTO api_keys (id, name, scope, sha256, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(KeyId(key.id))
        .bind(&key.name)
        .bind(key.scope)
        .bind(key.sha256)
        .bind(key.created_at.to_string())
        .bind(key.expires_at.map(|at| at.to_string()))
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    /// Revokes a key that is in use.
    pub async fn revoke_key(&self, id: Uuid, at: Timestamp) -> Result<(), DbError> {
        sqlx::query("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
            .bind(at.to_string())
            .bind(KeyId(id))
            .execute(&mut *self.writer().await?)
            .await?;
        Ok(())
    }

    /// All keys, revoked ones too, the oldest first.
    pub async fn keys(&self) -> Result<Vec<KeyRow>, DbError> {
        let all = sqlx::query_as("SELECT * FROM api_keys ORDER BY created_at, id");
        Ok(all.fetch_all(&self.readers).await?)
    }

    /// The keys that are not revoked.
    pub async fn keys_in_use(&self) -> Result<Vec<KeyRow>, DbError> {
        let all = sqlx::query_as("SELECT * FROM api_keys WHERE revoked_at IS NULL ORDER BY id");
        Ok(all.fetch_all(&self.readers).await?)
    }

    /// Whether there ever was a key.
    pub async fn had_keys(&self) -> Result<bool, DbError> {
        let any = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM api_keys)");
        Ok(any.fetch_one(&self.readers).await?)
    }
}
