"""Makes a starter encoder: a ResNet-18 that learns to place images as a teacher does.

    pip install torch torchvision safetensors pillow
    python3 tools/starter/distil.py IMAGES --teacher TEACHER --out distilled.safetensors [--minutes 80]
    python3 tools/starter/fold.py distilled.safetensors crates/kith-weights/starter.safetensors

IMAGES is a folder of folders of images, one folder a class. TEACHER is a name of torchvision.models (`efficientnet_b0`, with its weights), or a file that
`torch.jit.load` opens: a module from [batch, 3, 128, 128] to [batch, features].

The loss is 3 x (1 - cosine to the teacher's vector) + the Kullback-Leibler divergence between the softmaxes of the similarities within a batch
(temperature 1/8) + 0.3 x cross-entropy on the classes. The teacher's vectors are centred, reduced to 256 principal components, each scaled by
variance^-1/4, and of unit length. Weights are averaged over steps. The projection is the first --dim principal components of the student's features,
each scaled by variance^-3/8.
"""

import argparse
import math
import pathlib
import time

import torch
import torchvision
from safetensors.torch import save_file
from torchvision import transforms

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEACHER_SIDE = 128
COMPONENTS = 256


def teacher_of(name):
    """A module that answers pooled features."""
    if pathlib.Path(name).exists():
        return torch.jit.load(name).eval()
    model = torchvision.models.get_model(name, weights="DEFAULT")
    for head in ("classifier", "fc", "head"):
        if hasattr(model, head):
            setattr(model, head, torch.nn.Identity())
    return model.eval()


class OntoGround:
    """Sometimes shrinks an image onto a plain ground, as icons lie; half of the grounds are white."""

    def __call__(self, image):
        if torch.rand(()) > 0.1:
            return image
        side = image.shape[-1]
        small = max(8, int(side * (0.4 + 0.5 * torch.rand(()).item())))
        ground = torch.ones(3, 1, 1) if torch.rand(()) < 0.5 else torch.rand(3, 1, 1)
        canvas = ground.expand(3, side, side).clone()
        place = (side - small) // 2
        shrunk = transforms.functional.resize(image, [small, small], antialias=True)
        canvas[:, place : place + small, place : place + small] = shrunk
        return canvas


def views():
    """One random view at the teacher's side; the student sees it scaled down."""
    return transforms.Compose([
        transforms.RandomResizedCrop(TEACHER_SIDE, scale=(0.25, 1.0), antialias=True),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(0.4, 0.4, 0.4),
        transforms.RandomGrayscale(0.1),
        transforms.RandomInvert(0.03),
        transforms.ToTensor(),
        OntoGround(),
        transforms.Normalize(MEAN, DEVIATION),
    ])


def principal(features, count, power):
    """Mean, and `count` principal components as rows, each scaled by variance^power."""
    mean = features.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((features - mean).T))
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    return mean, (vectors * values.clamp_min(1e-8) ** power).T


@torch.no_grad()
def collected(model, loader, images, side):
    """Features of some images."""
    found = []
    for pixels, _ in loader:
        if side != TEACHER_SIDE:
            pixels = transforms.functional.resize(pixels, [side, side], antialias=True)
        found.append(model(pixels).flatten(1))
        if sum(map(len, found)) >= images:
            return torch.cat(found)
    return torch.cat(found)


def similarities(vectors):
    """Log-softmax of each row's similarities to the others in the batch."""
    scores = vectors @ vectors.T * 8
    scores.fill_diagonal_(-math.inf)
    return torch.log_softmax(scores, 1)


def loss_of(student, teacher, logits, labels):
    near = 1 - (student * teacher).sum(1).mean()
    wanted, found = similarities(teacher), similarities(student)
    others = ~torch.eye(len(student), dtype=torch.bool)
    apart = (wanted.exp() * (wanted - found))[others].sum() / len(student)
    classes = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    return 3 * near + apart + 0.3 * classes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=pathlib.Path)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    images = torchvision.datasets.ImageFolder(args.images, views())
    loader = torch.utils.data.DataLoader(images, args.batch, shuffle=True, drop_last=True, num_workers=2)
    teacher = teacher_of(args.teacher)
    mean, components = principal(collected(teacher, loader, 10_000, TEACHER_SIDE), COMPONENTS, -0.25)

    student = torchvision.models.resnet18(weights=None)
    student.fc = torch.nn.Identity()
    head, classes = torch.nn.Linear(512, COMPONENTS), torch.nn.Linear(512, len(images.classes))
    parts = torch.nn.ModuleList([student, head, classes])
    decayed = [p for p in parts.parameters() if p.ndim > 1]
    others = [p for p in parts.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}], lr=2e-3)
    averaged = torch.optim.swa_utils.AveragedModel(
        student, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999), use_buffers=True
    )

    started, step = time.monotonic(), 0
    while True:
        for pixels, labels in loader:
            share = (time.monotonic() - started) / (60 * args.minutes)
            if share >= 1:
                break
            rate = 2e-3 * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2) * min(1, (step + 1) / 200)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.no_grad():
                wanted = torch.nn.functional.normalize((teacher(pixels).flatten(1) - mean) @ components.T)
            small = transforms.functional.resize(pixels, [args.side, args.side], antialias=True)
            with torch.autocast("cpu", torch.bfloat16):
                features = student(small)
            features = features.float()
            loss = loss_of(torch.nn.functional.normalize(head(features)), wanted, classes(features), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            averaged.update_parameters(student)
            step += 1
            if step % 100 == 0:
                print(f"step {step}: loss {loss.item():.3f}, {100 * share:.0f} %", flush=True)
        else:
            continue
        break

    student = averaged.module.eval()
    mean, components = principal(collected(student, loader, 10_000, args.side), args.dim, -0.375)
    arrays = {name: value for name, value in student.state_dict().items() if value.is_floating_point()}
    arrays |= {"projection.weight": components.contiguous(), "projection.bias": -(components @ mean)}
    arrays = {name: value.half() if value.ndim == 4 else value.float() for name, value in arrays.items()}
    save_file({name: value.contiguous() for name, value in arrays.items()}, args.out)


if __name__ == "__main__":
    main()
