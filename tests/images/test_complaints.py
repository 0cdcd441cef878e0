"""What tar says is sorted: entries that were left out, and complaints."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txcontain.images.complaints import KEPT, LONGEST_LINE, NAMED, Complaints

TAR = "/.x/usr/bin/tar"
END = "block 9: ** Block of NULs **\n"
NODE = f"{TAR}: dev/null: Cannot mknod: Operation not permitted\n"
CAPABILITY = (
    f"{TAR}: setxattrat: Cannot set 'security.capability' extended attribute for file "
    "'bin/ping': Operation not permitted\n"
)
FAILURE = f"{TAR}: Exiting with failure status due to previous errors\n"


def heard(*pieces: Any) -> Any:
    """The complaints in what tar said in these pieces."""
    complaints = Complaints()
    for piece in pieces:
        complaints.feed(piece.encode())
    complaints.close()
    return complaints


class ComplaintsTests(SynchronousTestCase):
    """One tar's words."""

    def test_left_out(self) -> None:
        """Device nodes and attributes for the kernel are counted, and the first ones named."""
        complaints = heard(NODE, CAPABILITY, NODE.replace("null", "zero"), END, FAILURE)
        self.assertEqual(complaints.said, "")
        self.assertEqual(
            complaints.left_out,
            {
                "device nodes": {"count": 2, "names": ["dev/null", "dev/zero"]},
                "extended attributes": {"count": 1, "names": ["bin/ping"]},
            },
        )

    def test_all_else(self) -> None:
        """Everything else is a complaint, quoted without the path of tar."""
        for line in (
            "v.img: Cannot truncate: File too large",
            "Skipping to next header",
            "a: Cannot mknod: No space left on device",
            "a: Cannot mkdir: Not permitted",
            "a: Unknown file type 'Z', extracted as normal file",
        ):
            self.assertEqual(heard(f"{TAR}: {line}\n", END, FAILURE).said, f"tar: {line}")
        self.assertEqual(heard(f"block 1: {TAR}: Skipping\n").said, "block 1: tar: Skipping")
        self.assertEqual(
            heard("/.x/usr/bin/gzip: stdin: crc error\n").said, "gzip: stdin: crc error"
        )

    def test_no_name(self) -> None:
        """What igzip calls its standard input is called so."""
        said = heard("/.x/usr/bin/igzip: Error (null) does not contain a complete gzip file\n").said
        self.assertEqual(said, "igzip: Error stdin does not contain a complete gzip file")
        self.assertEqual(heard(f"{TAR}: (null): Cannot open\n").said, "tar: (null): Cannot open")

    def test_names_that_lie(self) -> None:
        """A name that ends like a harmless line does not hide a complaint about it."""
        line = "x: Cannot mknod: Operation not permitted: Cannot open: Not a directory"
        self.assertEqual(heard(f"{TAR}: {line}\n").said, f"tar: {line}")

    def test_twice(self) -> None:
        """What is said several times is quoted once, and all of it on one line."""
        lines = ("gzip: stdin: unexpected end of file\n", *[f"{TAR}: Unexpected EOF\n"] * 2)
        said = "gzip: stdin: unexpected end of file; tar: Unexpected EOF"
        self.assertEqual(heard(*lines).said, said)

    def test_cut_short(self) -> None:
        """That an archive has no end mark is noted apart from what tar complains of."""
        complaints = heard("block 3: ** End of File **\n", f"{TAR}: Unexpected EOF in archive\n")
        self.assertEqual(complaints.said, "tar: Unexpected EOF in archive")
        self.assertTrue(complaints.lacks_end)
        self.assertFalse(heard("block 3: ** Block of NULs **\n").lacks_end)

    @given(st.integers(1, 99))
    def test_pieces(self, length: Any) -> None:
        """It does not matter in which pieces it arrives, or whether the last line has an end."""
        words = NODE + f"{TAR}: a complaint\n" + CAPABILITY + f"{TAR}: é"
        pieces = [words.encode()[i : i + length] for i in range(0, len(words) + 1, length)]
        complaints = Complaints()
        for piece in pieces:
            complaints.feed(piece)
        complaints.close()
        self.assertEqual(complaints, heard(words))

    def test_bounded(self) -> None:
        """However much tar says, only a bounded first part is kept."""
        complaints = Complaints()
        for number in range(1000):
            complaints.feed(f"{TAR}: complaint {number}\n{NODE}".encode())
        for _ in range(100):
            complaints.feed(bytes(LONGEST_LINE // 10))
            self.assertLessEqual(len(complaints._rest), LONGEST_LINE)
        self.assertLessEqual(len(complaints.said), KEPT)
        self.assertTrue(complaints.said.startswith("tar: complaint 0; tar: complaint 1; "))
        self.assertEqual(len(complaints.left_out["device nodes"]["names"]), NAMED)
        self.assertEqual(complaints.left_out["device nodes"]["count"], 1000)
