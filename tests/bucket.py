"""A bucket on loopback that tells generations of objects and keeps to preconditions, as Google's does.

Tensorstore writes the manifest of a checkpoint on the condition that it is still the one it read, and the emulator by
itself neither tells which it is nor looks at the condition.
"""

import contextlib
import socket
from http import HTTPStatus

import pytest
from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects


def generation(storage, bucket: str, name: str) -> str:
    """Of an object; 0 where there is none."""
    try:
        return storage.get_file_obj(bucket, name)["generation"]
    except NotFound:
        return "0"


def telling(handler):
    """The handler of a read, with the header that names the generation."""

    def told(request, response, storage, *args, **kwargs):
        handler(request, response, storage, *args, **kwargs)
        response["x-goog-generation"] = generation(storage, request.params["bucket_name"], request.params["object_id"])

    return told


def minding(handler):
    """The handler of a write or deletion, which does nothing where another generation was expected."""

    def minded(request, response, storage, *args, **kwargs):
        name = request.params.get("object_id") or request.query["name"][0]
        expected = request.query.get("ifGenerationMatch", [None])[0]
        if expected not in (None, generation(storage, request.params["bucket_name"], name)):
            response.status = HTTPStatus.PRECONDITION_FAILED
            return
        handler(request, response, storage, *args, **kwargs)

    return minded


WRAPPED = {objects.get: telling, objects.download: telling, objects.insert: minding, objects.delete: minding}


@contextlib.contextmanager
def serve(name: str = "bucket"):
    """Environment variables by which orbax, tensorstore and gcsfs find the bucket, while it is served."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    wrap = lambda handler: WRAPPED.get(handler, lambda same: same)(handler)
    routes = tuple((path, {verb: wrap(handler) for verb, handler in verbs.items()}) for path, verbs in server.HANDLERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "HANDLERS", routes)
        patch.setattr("socketserver.TCPServer.request_queue_size", 1024)  # it answers one request at a time
        emulator = server.create_server("127.0.0.1", port, in_memory=True, default_bucket=name)
        emulator.start()
        where = f"http://127.0.0.1:{port}"
        variables = {"STORAGE_EMULATOR_HOST": where, "TENSORSTORE_GCS_HTTP_URL": where}
        variables |= {"GOOGLE_AUTH_TOKEN_FOR_TESTING": "none", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
        for variable, value in variables.items():
            patch.setenv(variable, value)
        yield variables
        emulator.stop()
