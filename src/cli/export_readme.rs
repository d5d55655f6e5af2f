//! What an exported checkpoint says about itself: a README, and the metadata of an ONNX graph.

use serde_json::json;

use super::export_format::Format;
use crate::checkpoint::{Manifest, Origin, OriginKind, preprocessing_hash};

const TORCHVISION: &str = r#"## Use it with torchvision

```python
import torch, torchvision
from safetensors.torch import load_file

network = torchvision.models.resnet18()
network.load_state_dict(load_file("resnet18.safetensors"), strict=True)
network.fc = torch.nn.Identity()  # the file's fc is zero: it is only there for the strict load
network.eval()                    # BatchNorm adds the biases of the convolutions, and nothing else
head = load_file("head.safetensors")
kept, pool = {}, torch.nn.functional.adaptive_avg_pool2d
network.layer1.register_forward_hook(lambda layer, inputs, output: kept.update(fine_places=pool(output, 4)))
network.layer3.register_forward_hook(lambda layer, inputs, output: kept.update(places=pool(output, 2)))

def embed(pixels):                # [batch, 3, side, side], prepared as above
    hidden = torch.relu(network(pixels) @ head["fc.weight"].T + head["fc.bias"])
    embedding = hidden @ head["projection.weight"].T + head["projection.bias"]
    for name, means in kept.items():
        embedding += torch.nn.functional.conv2d(means, head[f"{name}.weight"], head[f"{name}.bias"]).flatten(1)
    return torch.nn.functional.normalize(embedding)
```

Training on with BatchNorm in training mode would replace its statistics: keep `eval()`, or replace the BatchNorms.
"#;

const ONNX: &str = r#"## Use it with onnxruntime

```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
embedding, hidden = session.run(["embedding", "hidden"], {"pixels": pixels})  # [batch, 3, side, side], float32, prepared as above
session.get_modelmeta().custom_metadata_map                                   # the same facts as here
```
"#;

const KITH: &str = r#"## Use it with kith

```sh
kith evaluate --checkpoint . --query QUERIES.csv --gallery GALLERY.csv
kith checkpoint import model.safetensors --data-dir OTHER
```
"#;

const TWO_FOLDERS: &str = "There are two networks of this form: `anchor/` holds the encoder of anchors (queries), `positive/` that of positives (what is \
found). Compare embeddings of one with embeddings of the other.\n\n";

const TWO_IN_ONE_FILE: &str = "There are two networks of this form, the encoder of anchors (queries) and that of positives (what is found), whose arrays have \
`positive.` before their names. Compare embeddings of one with embeddings of the other.\n\n";

/// The README of an export.
pub(super) fn text(manifest: &Manifest, format: Format) -> anyhow::Result<String> {
    let encoder = &manifest.encoder;
    let (width, side, dim) = (encoder.width, encoder.side, encoder.dim);
    let preprocessing = manifest.preprocessing();
    let (mean, deviation) = (preprocessing.mean, preprocessing.deviation);
    let usage = match format {
        Format::Torchvision => TORCHVISION,
        Format::Onnx => ONNX,
        Format::Kith => KITH,
    };
    let narrow = if format == Format::Torchvision && width != 64 {
        "torchvision's `resnet18()` has width 64: this file needs a network with other numbers of channels.\n\n"
    } else {
        ""
    };
    let towers = match (encoder.towers, format) {
        (1, _) => String::new(),
        (_, Format::Kith) => TWO_IN_ONE_FILE.to_owned(),
        _ => TWO_FOLDERS.to_owned(),
    };
    Ok(format!(
        "# An image encoder of kith

Checkpoint {id}, step {step}, taken {created}.

- Network: ResNet-18 of width {width}, each convolution with a bias in place of BatchNorm; `fc` and ReLU give {hidden} hidden features. The sum of
  `projection` of these, `places` of the third stage's means over each quarter of the image and `fine_places` of the first stage's means over 4 x 4 parts
  of it, divided by its length, is the embedding of {dim} values.
  Compare embeddings by their dot product.
- Images: apply the orientation in the metadata; lay transparent pixels over {background}; crop the largest square in the middle; scale it to
  {side} x {side} with antialiased bilinear (Pillow's `resize((side, side), BILINEAR, box=…)`), bytes to bytes; divide by 255, subtract the mean {mean:?},
  divide by the deviation {deviation:?} (red, green, blue).
- Preprocessing: {hash}
- Origin: {origin}

{towers}{narrow}{usage}",
        id = manifest.id,
        step = manifest.step,
        created = manifest.created_at,
        hidden = 8 * width,
        background = preprocessing.background,
        hash = preprocessing_hash(&manifest.preprocessing()),
        origin = origin_text(manifest),
    ))
}

/// Keys and values for an ONNX graph.
pub(super) fn metadata(manifest: &Manifest) -> anyhow::Result<Vec<(String, String)>> {
    let encoder = &manifest.encoder;
    let pairs = [
        ("kith.checkpoint", manifest.id.to_string()),
        ("kith.step", manifest.step.to_string()),
        ("kith.origin", origin_text(manifest)),
        ("kith.network", json!(encoder).to_string()),
        (
            "kith.preprocessing",
            serde_json::to_string(&manifest.preprocessing())?,
        ),
        (
            "kith.preprocessing_hash",
            preprocessing_hash(&manifest.preprocessing()),
        ),
        (
            "kith.layout",
            "pixels [batch, 3, side, side], red, green, blue".to_owned(),
        ),
    ];
    Ok(pairs.map(|(key, value)| (key.to_owned(), value)).into())
}

fn origin_text(manifest: &Manifest) -> String {
    let Some(Origin {
        kind,
        file,
        sha256,
        projection,
        step,
        ..
    }) = &manifest.origin
    else {
        return "not known".to_owned();
    };
    let from = match kind {
        OriginKind::Fresh => "random weights".to_owned(),
        OriginKind::Starter => "the starter encoder of kith, made from ImageNet images".to_owned(),
        OriginKind::File => format!("the file {}", file.as_deref().unwrap_or("without a name")),
    };
    let hash = sha256
        .as_ref()
        .map_or(String::new(), |hash| format!(" (SHA-256 {hash})"));
    let head = projection.as_ref().map_or(String::new(), |head| {
        format!(", embedding at the start: {head}")
    });
    format!(
        "{from}{hash}{head}; trained by kith for {} steps",
        manifest.step.saturating_sub(*step)
    )
}
