"""Small tokenizers of the families in use: byte-level, sentencepiece-like, Unigram, WordPiece, single characters."""

import json
import re

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece

SPECIAL = ["<unk>", "</s>"]
CORPUS = [
    "the river and the garden, the stone and the end.",
    "naïve café été",
    "日本語 日本 の",
    "ภาษาไทย ภาษา",
    "مرحبا بالعالم",
]
CORPUS += [
    "👩\u200d👩\u200d👧\u200d👦 🇺🇳 👋🏽",
    "don't stop\n\nhere\r\n\tnow  and then   \n",
    "\n\nthe\n the 12,345\n\n\nend",
]
SENTENCE = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
STRIPPED = decoders.Sequence([SENTENCE, decoders.Strip(" ", 1, 0)])
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def trained(model, trainer, **parts):
    made = Tokenizer(model)
    for name, part in parts.items():
        setattr(made, name, part)
    made.train_from_iterator(CORPUS * 6, trainer(special_tokens=SPECIAL, show_progress=False))
    return made


def byte_level(prefix, trim=False):
    """As GPT-2's; with `prefix` and `trim` as RoBERTa's."""

    def trainer(**more):
        return trainers.BpeTrainer(vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **more)

    after = {"post_processor": processors.ByteLevel(trim_offsets=True, add_prefix_space=prefix)} if trim else {}
    before = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return trained(BPE(), trainer, pre_tokenizer=before, decoder=decoders.ByteLevel(), **after)


def unigram(scheme):
    """Metaspace; characters that it has not seen are one unknown token, however many they are."""

    def trainer(**more):
        return trainers.UnigramTrainer(vocab_size=130, unk_token="<unk>", max_piece_length=6, **more)

    before = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return trained(Unigram(), trainer, pre_tokenizer=before, decoder=decoders.Metaspace(prepend_scheme=scheme))


def folded():
    """As T5's and XGLM's: any white space is one blank, and none is left at either end."""
    made = unigram("always")
    made.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()])
    return made


def unigram_bytes():
    """Letters of ASCII alone; what else there is becomes bytes, line breaks among it."""
    made = json.loads(unigram("first").to_str())
    kept = [piece for piece in made["model"]["vocab"] if piece[0] in SPECIAL or re.fullmatch("[▁a-z]+", piece[0])]
    made["model"] |= {"vocab": [*kept, *([byte, -12.0] for byte in BYTES)], "byte_fallback": True}
    found = Tokenizer.from_str(json.dumps(made))
    found.decoder = STRIPPED
    return found


def sentence_bpe():
    """As Llama's and Mistral's: a blank before the text, spaces are letters, bytes for what has no token."""
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("n", "d")]
    tokens = [*SPECIAL, *BYTES, *"▁abcdefghijklmnopqrstuvwxyzH,.", *map("".join, merges)]
    made = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, merges, byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = STRIPPED
    return made


def word_piece():
    """As BERT's: lower case, no accents, no white space."""

    def trainer(**more):
        return trainers.WordPieceTrainer(vocab_size=130, **more)

    parts = {"normalizer": normalizers.BertNormalizer(lowercase=True), "decoder": decoders.WordPiece()}
    return trained(WordPiece(unk_token="<unk>"), trainer, pre_tokenizer=pre_tokenizers.BertPreTokenizer(), **parts)


def composed():
    """Byte-level after NFC, as Qwen's."""
    made = byte_level(prefix=False)
    made.normalizer = normalizers.NFC()
    return made


def characters():
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *sorted(set("".join(CORPUS)))])}
    made = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    return made


TOKENIZERS = {
    "bytes": lambda: byte_level(prefix=False),
    "composed": composed,
    "prefixed": lambda: byte_level(prefix=True),
    "trimmed": lambda: byte_level(prefix=True, trim=True),
    "unigram": lambda: unigram("first"),
    "unigram_always": lambda: unigram("always"),
    "unigram_bytes": unigram_bytes,
    "folded": folded,
    "sentence_bpe": sentence_bpe,
    "word_piece": word_piece,
    "characters": characters,
}
