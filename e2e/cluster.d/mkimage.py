#!/usr/bin/env python3
"""Makes an OCI image archive with one layer, without a container daemon.

The same inputs give the same bytes: times are zero, owners are root, entries are sorted. The layer is not compressed
unless --gzip is given: the archive never leaves the machine, and zlib's output differs between its versions.

Import it with `e2e/cluster load ARCHIVE`.

    mkimage.py --output worker.tar --name localhost/worker:0.1.0 --entrypoint /worker \\
        --user 65532 --with-libraries --with-ca bin/worker:/worker
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
CA_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
STICKY = {"tmp": 0o1777}
NONROOT = 65532
FILES = {
    "etc/passwd": f"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:{NONROOT}:{NONROOT}:nonroot:/tmp:/sbin/nologin\n",
    "etc/group": f"root:x:0:\nnonroot:x:{NONROOT}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
# `libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x…)` or, for the loader, `/lib64/ld-linux-x86-64.so.2 (0x…)`.
LDD_LINE = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$")


class ImageError(Exception):
    """What the user can mend; printed without a trace."""


def main():
    arguments = parse_arguments()
    try:
        write_image(arguments)
    except (ImageError, OSError) as error:
        print(f"mkimage: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="the archive to write; it appears only when it is complete")
    parser.add_argument("--name", required=True, metavar="NAME:TAG")
    parser.add_argument("--entrypoint", action="append", default=[], metavar="WORD", help="repeat it for each word")
    parser.add_argument("--user", default="0", help=f"uid or uid:gid; {NONROOT} is known as nonroot (default: 0)")
    parser.add_argument("--label", action="append", default=[], type=pair("="), metavar="KEY=VALUE")
    parser.add_argument("--symlink", action="append", default=[], type=pair(":"), metavar="PATH:TARGET")
    parser.add_argument("--with-libraries", action="store_true", help="add what ldd names for each ELF file")
    parser.add_argument("--with-ca", action="store_true", help=f"add {CA_CERTIFICATES}")
    parser.add_argument("--gzip", action="store_true", help="compress the layer")
    parser.add_argument("files", nargs="+", type=pair(":"), metavar="SRC:DEST")
    return parser.parse_args()


def pair(separator):
    """An argparse type: `left<separator>right`, both not empty."""

    def parse(text):
        left, found, right = text.partition(separator)
        if not (left and found and right):
            raise argparse.ArgumentTypeError(f"{text!r} is not LEFT{separator}RIGHT")
        return left, right

    return parse


def full_name(name):
    """The name, if the kubelet asks for it as it is: to a name without a registry it adds one."""
    repository, _, tag = name.rpartition(":")
    if not repository or "/" in tag:
        raise ImageError(f"--name {name}: NAME:TAG is needed")
    first, slash, _ = repository.partition("/")
    if not slash or not (first == "localhost" or "." in first or ":" in first):
        raise ImageError(f"--name {name}: begin with a registry, e.g. localhost/{name}")
    return name


def sources(arguments):
    """Path in the image, without the leading slash → path on this machine."""
    found = {}
    for source, destination in arguments.files:
        if not os.path.isfile(source):
            raise ImageError(f"{source} is not a file")
        found[inside(destination)] = source
        if arguments.with_libraries and is_elf(source):
            for library in libraries(source):
                found.setdefault(inside(library), library)
    if arguments.with_ca:
        if not os.path.isfile(CA_CERTIFICATES):
            raise ImageError(f"{CA_CERTIFICATES} is missing: install ca-certificates")
        found[inside(CA_CERTIFICATES)] = CA_CERTIFICATES
    return found


def inside(path):
    normal = os.path.normpath("/" + path).lstrip("/")
    if not normal:
        raise ImageError(f"{path} names no file in the image")
    return normal


def is_elf(path):
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries(binary):
    """The loader and the libraries at the paths where the loader looks for them; none for a static binary."""
    result = subprocess.run(["ldd", binary], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if "not a dynamic executable" in result.stderr + result.stdout or "statically linked" in result.stdout:
        return []
    if result.returncode != 0 or "not found" in result.stdout:
        raise ImageError(f"ldd {binary}: {(result.stderr or result.stdout).strip()}")
    return [match[1] for match in map(LDD_LINE.match, result.stdout.splitlines()) if match]


def entry(path, kind=tarfile.REGTYPE, mode=0o644, size=0, target=""):
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.size, info.linkname = kind, mode, size, target
    return info


def write_layer(file, arguments):
    """Writes the layer's tar: directories first, then files and links, each in the order of their paths."""
    from_machine = sources(arguments)
    links = {inside(path): target for path, target in arguments.symlink}
    paths = {**FILES, **from_machine, **links, **dict.fromkeys(STICKY)}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for directory in sorted({parent for path in paths for parent in parents(path)} | set(STICKY)):
            tar.addfile(entry(directory, tarfile.DIRTYPE, STICKY.get(directory, 0o755)))
        for path in sorted(set(paths) - set(STICKY)):
            if path in links:
                tar.addfile(entry(path, tarfile.SYMTYPE, 0o777, target=links[path]))
            elif path in from_machine:
                add_file(tar, path, from_machine[path])
            else:
                add_bytes(tar, path, FILES[path].encode())


def parents(path):
    steps = path.split("/")[:-1]
    return ["/".join(steps[: n + 1]) for n in range(len(steps))]


def add_file(tar, path, source):
    mode = 0o755 if os.access(source, os.X_OK) else 0o644
    with open(source, "rb") as file:
        tar.addfile(entry(path, mode=mode, size=os.fstat(file.fileno()).st_size), file)


def add_bytes(tar, path, data):
    tar.addfile(entry(path, size=len(data)), io.BytesIO(data))


def sha256(file):
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def compress(layer, packed):
    layer.seek(0)
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=6, mtime=0) as out:
        shutil.copyfileobj(layer, out, 1 << 20)


def document(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def descriptor(kind, data):
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
            "size": len(data)}


def write_image(arguments):
    name = full_name(arguments.name)
    machine = platform.machine()
    directory = os.path.dirname(os.path.abspath(arguments.output))
    os.makedirs(directory, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory) as layer, tempfile.TemporaryFile(dir=directory) as packed:
        write_layer(layer, arguments)
        diff_id, blob, suffix = sha256(layer), layer, ""
        if arguments.gzip:
            compress(layer, packed)
            blob, suffix = packed, "+gzip"
        blob_size = blob.seek(0, os.SEEK_END)
        layer_descriptor = {
            "mediaType": f"application/vnd.oci.image.layer.v1.tar{suffix}",
            "digest": f"sha256:{sha256(blob)}",
            "size": blob_size,
        }
        config = document({
            "architecture": ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {
                "Entrypoint": arguments.entrypoint,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Labels": dict(arguments.label),
                "User": arguments.user,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        })
        manifest = document({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", config),
            "layers": [layer_descriptor],
        })
        annotations = {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name.rpartition(":")[2],
        }
        index = document({
            "schemaVersion": 2,
            "manifests": [{**descriptor("manifest.v1+json", manifest), "annotations": annotations}],
        })
        write_archive(arguments.output, index, [config, manifest], layer_descriptor, blob)
    print(f"mkimage: {name}, {os.path.getsize(arguments.output) / 2**20:.1f} MiB, {arguments.output}", file=sys.stderr)


def write_archive(output, index, documents, layer_descriptor, blob):
    partial = f"{output}.{os.getpid()}.part"
    try:
        with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as tar:
            add_bytes(tar, "oci-layout", document({"imageLayoutVersion": "1.0.0"}))
            add_bytes(tar, "index.json", index)
            for data in documents:
                add_bytes(tar, f"blobs/sha256/{hashlib.sha256(data).hexdigest()}", data)
            digest = layer_descriptor["digest"].removeprefix("sha256:")
            blob.seek(0)
            tar.addfile(entry(f"blobs/sha256/{digest}", size=layer_descriptor["size"]), blob)
        os.replace(partial, output)
    finally:
        if os.path.exists(partial):
            os.remove(partial)


if __name__ == "__main__":
    sys.exit(main())
