//! The places of images on a map.

use kith::{db::CheckpointRow, types::CheckpointId};

use super::{image, open};

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_finds_a_whole_map_while_it_is_replaced() {
    let fixture = open().await;
    let db = fixture.db.clone();
    let images: Vec<_> = (0..300).map(image).collect();
    let rows = db.insert_images(&images).await.unwrap();
    let checkpoint = CheckpointRow::new(CheckpointId::now(), 0, jiff::Timestamp::now());
    db.insert_checkpoint(&checkpoint).await.unwrap();
    let space = db.vector_space(checkpoint.id).await.unwrap();
    let places: Vec<_> = rows
        .iter()
        .map(|(row, _)| (row.key, [0.25, -0.5]))
        .collect();
    db.set_places(space, &places).await.unwrap();
    let writer = tokio::spawn(async move {
        for _ in 0..40 {
            db.set_places(space, &places).await.unwrap();
        }
    });
    let mut looked = 0;
    while !writer.is_finished() {
        let placed = fixture.db.placed_images(space).await.unwrap();
        assert_eq!(placed.len(), 300, "after {looked} looks");
        looked += 1;
    }
    writer.await.unwrap();
    assert!(looked > 0);
}
