from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from proteus_omics.errors import DataError, FormatError, ProteusWarning
from proteus_omics.knowledge import GeneSet, Knowledge, KnowledgeSource, install, installed

GMT = (
    "GO:1\tcell cycle\tCDK1\tCDK2\tCCNB1\nGO:2\timmune response\tPIGR\tC3\n\n"
    "SET_A\thttps://example.org\tCDK1\n"
)
ALL = os.environ.get("TENFOLD_DATA")


def load(tmp_path: Path, **files: str) -> Knowledge:
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return Knowledge.load(tmp_path)


def test_a_gmt_file_gives_sets_with_names_and_a_collection_named_by_its_stem(tmp_path):
    (tmp_path / "go_bp_2020-03-23.gmt.gz").write_bytes(gzip.compress(GMT.encode()))
    known = Knowledge.load(tmp_path)
    assert known.sets["go_bp"]["GO:1"] == GeneSet("GO:1", "cell cycle", frozenset({"CDK1", "CDK2", "CCNB1"}))
    assert known.name("SET_A") == "set a"
    assert known.terms["CDK1"] == {"GO:1", "SET_A"}
    assert known.name("GO:9") == "GO:9"


def test_hallmark_sets_are_known_by_their_ids_whatever_the_file_is_called(tmp_path):
    known = load(tmp_path, h__gmt="HALLMARK_COAGULATION\tna\tF2\tF9\n")
    assert known.sets["hallmark"]["HALLMARK_COAGULATION"].name == "coagulation"


def test_annotations_with_not_are_left_out_and_terms_take_their_names_from_the_ontology(tmp_path):
    row = "UniProtKB\tP1\t{}\t{}\t{}\tREF\tIEA\t\t{}\tname\t\tprotein\ttaxon:9606\t2020\tX\t\t\n"
    gaf = "!gaf-version: 2.2\n" + row.format("A", "involved_in", "GO:1", "P")
    gaf += row.format("B", "NOT|involved_in", "GO:1", "P") + row.format("C", "located_in", "GO:5", "C")
    obo = "[Term]\nid: GO:1\nname: cell cycle\n\n[Term]\nid: GO:5\nname: nucleus\n"
    known = load(tmp_path, goa__gaf=gaf, go__obo=obo)
    assert known.sets["go_bp"] == {"GO:1": GeneSet("GO:1", "cell cycle", frozenset({"A"}))}
    assert known.sets["go_cc"]["GO:5"].name == "nucleus"


EDGES = {
    "table__tsv": "gene_a\tgene_b\tscore\nB\tA\t3\nA\tA\t1\nB\tC\t2\n",
    "list__csv": "source,target\nA,B\nC,B\n",
    "net__sif": "A pp B\nB pp A C\n",
    "bio__txt": "#BioGRID Interaction ID\tOfficial Symbol Interactor A\tOfficial Symbol Interactor B\n"
    "1\tA\tB\n2\tC\tB\n",
}


@pytest.mark.parametrize("name", EDGES)
def test_every_format_of_edges_gives_the_same_undirected_pairs_without_loops(tmp_path, name):
    known = load(tmp_path, **{name: EDGES[name]})
    assert known.edges == {("A", "B"), ("B", "C")}
    assert known.partners["B"] == {"A", "C"}
    assert known.connected("C", "B")
    assert not known.connected("A", "C")


def test_string_edges_take_symbols_from_its_info_file_and_need_high_confidence(tmp_path):
    links = "protein1 protein2 combined_score\n9606.E1 9606.E2 900\n9606.E1 9606.E3 699\n"
    info = '#string_protein_id\tpreferred_name\tannotation\n9606.E1\tA\tx "y\n9606.E2\tB\tz\n'
    known = load(tmp_path, links__txt=links, info__txt=info)
    assert known.edges == {("A", "B")}


def test_accessions_and_their_isoforms_have_a_symbol(tmp_path):
    known = load(tmp_path, symbols__tsv="accession_number\tgene\nP01833\tPIGR\n", a__gmt=GMT)
    assert known.symbol("P01833-2") == "PIGR"
    assert known.symbol("Q0") is None
    assert known.lookup(["P01833", "XYZ"]).to_dict("records") == [
        {"entity": "P01833", "collection": "a", "term": "GO:2", "name": "immune response"}
    ]
    assert known.overlap(["PIGR", "XYZ", ""]) == 0.5
    assert known.overlap([]) == 0


def test_the_hash_follows_the_contents_of_the_files(tmp_path):
    first = load(tmp_path, a__gmt=GMT).sha256
    assert load(tmp_path, a__gmt=GMT).sha256 == first
    assert load(tmp_path, a__gmt=GMT + "GO:3\tother\tX\n").sha256 != first


def test_what_cannot_be_read_is_told_with_its_file_and_line(tmp_path):
    with pytest.raises(DataError, match="no knowledge folder"):
        Knowledge.load(tmp_path / "none")
    with pytest.raises(DataError, match="holds no gene sets"):
        Knowledge.load(tmp_path)
    with pytest.raises(FormatError, match=r"a\.gmt, line 2"):
        load(tmp_path, a__gmt="GO:1\tname\tA\nbroken\n")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.txt", "protein1 protein2 combined_score\nA B high\n", r"s\.txt cannot be read.*'high'"),
        ("a.gaf", "db\tid\tCDK1\tis_a\tGO:1\tref\tIEA\tx\tQ\tname\n", r"a\.gaf, line 1.*'Q'"),
        ("a.gmt.gz", b"\x1f\x8b\x08" + bytes(20), r"a\.gmt\.gz cannot be read"),
    ],
)
def test_a_damaged_file_is_told_with_what_is_wrong(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FormatError, match=message):
        Knowledge.load(tmp_path)


def test_a_damaged_record_of_what_was_installed_is_told(tmp_path):
    for text in ("{", "[]", '{"a.gmt": {}}'):
        (tmp_path / "installed.json").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"installed\.json is damaged"):
            load(tmp_path, a__gmt=GMT)


def test_a_table_of_unknown_kind_is_left_out_with_a_warning(tmp_path):
    with pytest.warns(ProteusWarning, match=r"other\.tsv"):
        known = load(tmp_path, other__tsv="x\ty\n1\t2\n", a__gmt=GMT)
    assert set(known.sets) == {"a"}


def test_an_installed_file_is_recorded_with_checksum_and_licence_and_must_not_change(tmp_path):
    origin = tmp_path / "origin.gmt"
    origin.write_text(GMT, encoding="utf-8")
    folder = tmp_path / "knowledge"
    source = KnowledgeSource("mine", {"mine.gmt": origin.as_uri()}, "CC0", "nobody")
    digest = install(source, folder)["mine.gmt"]
    assert installed(folder)["mine.gmt"]["sha256"] == digest
    assert installed(folder)["mine.gmt"]["licence"] == "CC0"
    assert set(Knowledge.load(folder).sets) == {"mine"}
    (folder / "mine.gmt").write_text(GMT + "GO:3\tmore\tA\n", encoding="utf-8")
    with pytest.raises(DataError, match="has changed since"):
        Knowledge.load(folder)


def test_a_source_that_is_unknown_or_cannot_be_fetched_is_an_error(tmp_path):
    with pytest.raises(DataError, match="there are go, hallmark, string"):
        install("kegg", tmp_path)
    gone = KnowledgeSource("gone", {"a.gmt": (tmp_path / "none.gmt").as_uri()}, "", "")
    with pytest.raises(DataError, match="gone"):
        install(gone, tmp_path)


@pytest.mark.skipif(
    not ALL or not Path(ALL or "", "proteus/knowledge").is_dir(), reason="data proteus/knowledge is not here"
)
def test_the_real_files_hold_what_their_description_says():
    known = Knowledge.load(Path(ALL or "", "proteus/knowledge"))
    sizes = {name: len(terms) for name, terms in known.sets.items()}
    assert sizes == {"go_bp": 12362, "go_cc": 1765, "go_mf": 4271, "hallmark": 50}
    assert 43_000 < len(known.edges) <= 45_457  # loops are left out
    assert known.symbol("P01833") == "PIGR"
    assert "F2" in known.sets["hallmark"]["HALLMARK_COAGULATION"].genes
