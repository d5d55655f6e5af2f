//! Additions that succeed: images once, pairs in each form, and all of it there after reopening.

use kith::{
    db::Split,
    ingest::{IngestError, PairUpload, Upload},
    types::Sha256,
};
use kith_mcmc::PairKey;

use super::{Fixture, bytes, id, open, open_in, pair, png};

#[tokio::test]
async fn an_image_is_stored_once_with_what_its_header_says() {
    let fixture = open().await;
    let (row, new) = fixture.ingest.add_image(png(1)).await.unwrap();
    assert!(new);
    assert_eq!(row.sha256, Sha256::digest(&png(1)));
    assert_eq!(row.bytes, png(1).len() as u64);
    assert_eq!((row.width, row.height, row.format.as_str()), (6, 4, "png"));
    assert_eq!(
        fixture.ingest.add_image(png(1)).await.unwrap(),
        (row.clone(), false)
    );
    assert_eq!(
        fixture.ingest.image_bytes(row.sha256).await.unwrap(),
        Some(png(1))
    );
    assert_eq!(
        fixture
            .ingest
            .image_bytes(Sha256::digest(b"none"))
            .await
            .unwrap(),
        None
    );
    fixture.assert_holds(1, 0).await;
}

#[tokio::test]
async fn pairs_come_as_bytes_and_ids_and_alone() {
    let fixture = open().await;
    fixture.ingest.add_image(png(1)).await.unwrap();
    let pairs = vec![
        pair(id(1), bytes(2)),
        pair(bytes(3), None),
        pair(bytes(2), id(1)),
        pair(id(2), bytes(3)), // an id names what is stored before the request
    ];
    let refused = fixture.ingest.add_pairs(pairs.clone()).await;
    assert!(
        matches!(refused, Err(IngestError::UnknownImage { .. })),
        "{refused:?}"
    );
    fixture.assert_holds(1, 0).await;

    let stored = fixture.ingest.add_pairs(pairs[..3].to_vec()).await.unwrap();
    let [one, two, three] = [1, 2, 3].map(|shade| Sha256::digest(&png(shade)));
    let ids: Vec<_> = stored
        .iter()
        .map(|(row, _)| (row.anchor, row.positive))
        .collect();
    assert_eq!(ids, [(one, two), (three, three), (one, two)]);
    assert_eq!(
        stored
            .iter()
            .map(|(_, duplicate)| *duplicate)
            .collect::<Vec<_>>(),
        [false, false, true]
    );
    assert!(stored.iter().all(|(row, _)| row.split == Split::Train));
    fixture.assert_holds(3, 2).await;
    assert!(
        fixture
            .ingest
            .add_pairs(Vec::new())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn groups_stay_with_their_own_pairs() {
    let fixture = open().await;
    let grouped = |anchor, positive: Option<Upload>, group: Option<&str>| PairUpload {
        group: group.map(str::to_owned),
        ..pair(anchor, positive)
    };
    let pairs = vec![
        grouped(bytes(1), Some(bytes(2)), Some("first")),
        grouped(bytes(3), None, None),
        grouped(bytes(4), None, Some("third")),
    ];
    let stored = fixture.ingest.add_pairs(pairs).await.unwrap();
    let groups: Vec<_> = stored.iter().map(|(row, _)| row.group.as_deref()).collect();
    assert_eq!(groups, [Some("first"), None, Some("third")]);
}

#[tokio::test]
async fn a_pair_that_was_answered_is_there_after_reopening_with_its_bytes() {
    let fixture = open().await;
    let stored = fixture
        .ingest
        .add_pairs(vec![pair(bytes(1), bytes(2))])
        .await
        .unwrap();
    let Fixture { db, folder, .. } = fixture;
    db.close().await;
    let fixture = open_in(folder).await;
    let rows = fixture.db.pairs_after(PairKey(0), 10, None).await.unwrap();
    assert_eq!(rows, [stored[0].0.clone()]);
    for shade in [1, 2] {
        let bytes = fixture
            .ingest
            .image_bytes(Sha256::digest(&png(shade)))
            .await;
        assert_eq!(bytes.unwrap(), Some(png(shade)));
    }
}
