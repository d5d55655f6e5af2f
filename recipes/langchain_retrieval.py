"""LangChain finds images by an image: the texts of its documents are paths, which kith embeds.

python langchain_retrieval.py FOLDER QUERY.png
"""

import sys

from image_files import image_files
from kith_client import Kith
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore


class KithEmbeddings(Embeddings):
    """Embeds the files that texts name, all by the checkpoint that is live when this is made: its vectors can be compared."""

    def __init__(self, kith: Kith) -> None:
        self.kith = kith
        self.model = f"kith@{kith.models.get().checkpoint}"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.kith.embed(texts, model=self.model, input_type="document").vectors.tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.kith.embed(text, model=self.model, input_type="query").vectors[0].tolist()


def main(folder: str, query: str) -> None:
    with Kith() as kith:
        # Any of LangChain's stores takes the same class.
        store = InMemoryVectorStore(KithEmbeddings(kith))
        store.add_texts([str(path) for path in image_files(folder)])
        for document, score in store.similarity_search_with_score(query, k=5):
            print(f"{score:.4f}  {document.page_content}")


if __name__ == "__main__":
    main(*sys.argv[1:])
