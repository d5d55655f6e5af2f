"""LlamaIndex finds images by an image: the texts of its nodes are paths, which kith embeds.

python llamaindex_retrieval.py FOLDER QUERY.png
"""

import sys

from image_files import image_files
from kith_client import Kith
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.schema import TextNode
from pydantic import PrivateAttr


class KithEmbedding(BaseEmbedding):
    """Embeds the files that texts name, all by the checkpoint that is live when this is made: its vectors can be compared."""

    _kith: Kith = PrivateAttr()

    def __init__(self, kith: Kith) -> None:
        super().__init__(model_name=f"kith@{kith.models.get().checkpoint}")
        self._kith = kith

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._kith.embed(texts, model=self.model_name).vectors.tolist()

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return self._get_query_embedding(query)


def main(folder: str, query: str) -> None:
    with Kith() as kith:
        nodes = [TextNode(text=str(path)) for path in image_files(folder)]
        # Any of LlamaIndex's stores takes the same class.
        index = VectorStoreIndex(nodes, embed_model=KithEmbedding(kith))
        for found in index.as_retriever(similarity_top_k=5).retrieve(query):
            print(f"{found.score:.4f}  {found.node.get_content()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
