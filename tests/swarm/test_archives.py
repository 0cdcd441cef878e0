"""What of a tar stream a Docker is given."""

import gzip
import io
import tarfile
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txcontain.errors import InvalidData
from txcontain.swarm.archives import BLOCK, LONGEST_META, Filter, summed

LONG = "folder/" + "x" * 300
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def packed(*members: Any, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar stream of members, each with its content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, **more: Any) -> tarfile.TarInfo:
    """A member that is someone's."""
    told = tarfile.TarInfo(name)
    given = {"uid": 1000, "gid": 5_000_000, "uname": "ann", "gname": "staff", "mtime": 1.5}
    for key, value in {"type": kind, "mode": 0o640, **given, **more}.items():
        setattr(told, key, value)
    return told


def passed(stream: bytes, piece: int = 1 << 20, owners: bool = False) -> tuple[bytes, Filter]:
    """What comes out if it comes in such pieces."""
    kept = Filter(owners)
    out = [kept.feed(stream[at : at + piece]) for at in range(0, len(stream), piece)]
    kept.close()
    return b"".join(out), kept


def unpacked(stream: bytes) -> dict[str, tuple[Any, ...]]:
    """What is in a stream: of each its kind, its owners, its mode and its content."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(stream)) as tar:
        for one in tar:
            file = tar.extractfile(one) if one.isreg() else None
            owners = one.uid, one.gid, one.uname, one.gname
            found[one.name] = one.type, owners, one.mode, file.read() if file else one.linkname
    return found


class FilterTests(SynchronousTestCase):
    """What comes in, and what goes out."""

    def test_all(self) -> None:
        """All but owners stays, in each format, however it is cut into pieces."""
        for form in FORMATS:
            name = LONG[:90] if form == tarfile.USTAR_FORMAT else LONG
            group = 7 if form == tarfile.USTAR_FORMAT else 5_000_000
            members = [
                (member("folder", tarfile.DIRTYPE, gid=group), b""),
                (member(name, gid=group), b"content" * 200),
                (member("empty", gid=group), b""),
                (member("link", tarfile.SYMTYPE, linkname=name[-90:], gid=group), b""),
                (member("hard", tarfile.LNKTYPE, linkname="empty", gid=group), b""),
            ]
            stream = packed(*members, form=form)
            wanted = {
                path: (kind, (0, 0, "", ""), mode, content)
                for path, (kind, _, mode, content) in unpacked(stream).items()
            }
            for piece in (1, 100, 511, 513, 1 << 20):
                out, _ = passed(stream, piece)
                self.assertEqual(unpacked(out), wanted, (form, piece))
            out, _ = passed(stream, owners=True)
            self.assertEqual(unpacked(out), unpacked(stream))

    def test_devices(self) -> None:
        """Devices are left out and counted, with the long names that tell of them."""
        for form in FORMATS[1:]:
            stream = packed(
                (member(LONG, tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
                (member("disk", tarfile.BLKTYPE, devmajor=8), b""),
                (member("kept"), b"1"),
                form=form,
            )
            out, kept = passed(stream)
            self.assertEqual([*unpacked(out)], ["kept"])
            self.assertEqual(kept.devices, 2)

    def test_sparse(self) -> None:
        """A sparse file of GNU with more headers than one comes as it is."""
        header = bytearray(member("sparse", gid=7).tobuf(tarfile.GNU_FORMAT))
        header[156:157], header[482] = tarfile.GNUTYPE_SPARSE, 1
        header[124:136] = b"%011o\0" % 3
        more, last = bytearray(BLOCK), bytearray(BLOCK)
        more[504] = 1
        stream = summed(bytes(header)) + more + last + b"abc".ljust(BLOCK, b"\0")
        stream += packed((member("after"), b"x"))
        out, _ = passed(stream, 100)
        self.assertEqual(out[BLOCK : 4 * BLOCK], stream[BLOCK : 4 * BLOCK])
        self.assertEqual([*unpacked(out[4 * BLOCK :])], ["after"])

    def test_size_of_pax(self) -> None:
        """The size that pax tells is the one that counts: else a content would be read as names."""
        inner = packed((member("inner", tarfile.CHRTYPE), b""))
        stream = bytearray(packed((member("outer", pax_headers={"size": str(len(inner))}), inner)))
        at = stream.index(b"outer")
        header = stream[at : at + BLOCK]
        header[124:136] = b"%011o\0" % 0
        stream[at : at + BLOCK] = summed(bytes(header))
        out, kept = passed(bytes(stream))
        self.assertEqual(unpacked(out)["outer"][3], inner)
        self.assertEqual(kept.devices, 0)

    def test_the_rest(self) -> None:
        """What comes after the end is thrown away, however much that is; nothing of it is kept."""
        stream = packed((member("a"), b"1"))
        kept = Filter(owners=False)
        out = kept.feed(stream)
        for _ in range(100):
            out += kept.feed(b"x" * (1 << 16))
        kept.close()
        self.assertEqual([*unpacked(out)], ["a"])

    def test_refused(self) -> None:
        """What is compressed, no tar, too long or cut short is refused."""
        stream = packed((member("a"), b"1" * 2000))
        long = member("././@LongLink", tarfile.GNUTYPE_LONGNAME)
        long.size = LONGEST_META + 1
        negative = bytearray(stream[:BLOCK])
        negative[124:136] = b"\xff" * 12
        keywords = member("x", tarfile.XHDTYPE)
        for sent in (
            gzip.compress(stream).ljust(BLOCK, b"\0"),
            b"x" * BLOCK,
            long.tobuf(tarfile.GNU_FORMAT),
            summed(bytes(negative)),
            stream[: 3 * BLOCK],
            stream[:700],
            *(
                packed((keywords, text), form=tarfile.GNU_FORMAT)
                for text in (b"9 a=b", b"x a=b\n", b"0 a=b\n", b"99 a=b\n", b"11 size=-1\n")
            ),
        ):
            self.assertRaises(InvalidData, passed, sent)

    def test_meta_without_end(self) -> None:
        """Long names that no header follows are not kept for ever."""
        one = packed((member("x", tarfile.GNUTYPE_LONGNAME), b"y" * LONGEST_META))
        one = one[: BLOCK + LONGEST_META]
        kept = Filter(owners=False)
        with self.assertRaises(InvalidData):
            for _ in range(10):
                kept.feed(one)
