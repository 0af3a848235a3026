"""Pictures for the tests, as cameras and people make them, and their way to the server."""

import io
import os

from PIL import ExifTags, Image

from person import ok

CAMERA = "Hearth & Sons"


def photograph(width, height, orientation=1):
    """A JPEG unlike every other. With orientation 6 the camera was held upright, and what is stored lies on a side."""
    noise = Image.frombytes("L", (16, 16), os.urandom(256)).resize((width, height))
    slope = Image.linear_gradient("L").resize((width, height))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = CAMERA
    jpeg = io.BytesIO()
    Image.merge("RGB", (noise, slope, noise)).save(jpeg, "JPEG", exif=exif)
    return jpeg.getvalue()


def look_at(data):
    """The picture in these bytes, decoded."""
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


async def upload(person, data, content_type="image/jpeg", filename=None, **options):
    """Uploads a file and returns its URI, and what opens it where nio was to encrypt it."""
    response, keys = await person.client.upload(lambda *_: data, content_type, filename, **options)
    return ok(response).content_uri, keys


async def thumbnail(person, mxc, *size):
    server_name, media_id = mxc.removeprefix("mxc://").split("/")
    return ok(await person.client.thumbnail(server_name, media_id, *size))
