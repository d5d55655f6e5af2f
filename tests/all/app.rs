//! Starting and stopping the app.

use kith::app::{App, check_exposure};

use crate::support::{settings, start_and_stop};

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused_until_the_first_stops() {
    let folder = tempfile::tempdir().unwrap();
    let first = App::start(settings(&folder, &[])).await.unwrap();
    let refused = App::start(settings(&folder, &[]))
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains("another kith process") && refused.contains("--data-dir"),
        "{refused}"
    );
    first.stop().await.unwrap();
    start_and_stop(&folder).await;
}

#[tokio::test]
async fn a_folder_stays_locked_when_its_lock_file_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let first = App::start(settings(&folder, &[])).await.unwrap();
    std::fs::remove_file(first.settings.storage.data_dir.join("lock")).unwrap();
    let refused = App::start(settings(&folder, &[])).await.err().unwrap();
    assert!(refused.to_string().contains("another kith process"));
    first.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_serves_the_checkpoint_it_served_before() {
    let folder = tempfile::tempdir().unwrap();
    let first = App::start(settings(&folder, &[])).await.unwrap();
    let live = first.serving.live().unwrap();
    first.stop().await.unwrap();
    let second = App::start(settings(&folder, &[])).await.unwrap();
    assert_eq!(second.serving.live().unwrap(), live);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_missing_device_is_one_clear_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let refused = App::start(settings(&folder, &["encoder.device=cuda:99"]))
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.starts_with("encoder.device") && !refused.contains('\n'),
        "{refused}"
    );
}

#[tokio::test]
async fn an_address_that_other_machines_can_reach_must_be_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let check = async |sets: &[&str]| {
        let checked = check_exposure(&settings(&folder, sets)).await;
        checked.map_err(|error| error.to_string())
    };
    for listen in [
        "127.0.0.1:0",
        "[::1]:0",
        "[::ffff:127.0.0.1]:0",
        "localhost:0",
    ] {
        check(&[&format!("server.listen={listen}")]).await.unwrap();
    }
    let refused = check(&["server.listen=0.0.0.0:0"]).await.unwrap_err();
    assert!(refused.contains("--insecure"), "{refused}");
    check(&["server.listen=0.0.0.0:0", "server.insecure=true"])
        .await
        .unwrap();
    assert!(
        check(&["server.listen=nowhere"])
            .await
            .unwrap_err()
            .contains("server.listen")
    );
}
