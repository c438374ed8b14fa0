"""The body of an upload, read as pveproxy does (`file_upload_multipart` in PVE/APIServer/AnyEvent.pm): fields in one order only, and
the file as it comes."""

import re

from fakepve.model import PveError

# The fields that it looks for, in this order, before the file.
FIELDS = ('content', 'checksum-algorithm', 'checksum')
HEAD_LIMIT = 16 * 1024


class Multipart(object):
    """A body that is being read. `fields` are there once the file begins."""

    def __init__(self, boundary):
        self.boundary = boundary.encode()
        self.fields = {}
        self.filename = None
        self.buffer = b''
        self.closed = False

    def _take_fields(self):
        """Takes what stands before the file out of the buffer. Whether the file has begun."""
        start = self.buffer.find(b'--' + self.boundary + b'\r\n')
        if start < 0:
            return False
        buffer = self.buffer[start:]
        delimiter = rb'--' + re.escape(self.boundary) + rb'\r?\n'
        for name in FIELDS:
            found = re.match(delimiter + rb'.*?Content-Disposition: (.*?); name="' + re.escape(name).encode()
                             + rb'"(.*?)' + rb'(?=' + delimiter + rb')', buffer, re.S)
            if found:
                self._is_form_data(found.group(1))
                self.fields[name] = re.sub(rb'^.*?\r?\n\r?\n', b'', found.group(2), count=1, flags=re.S).decode().strip()
                buffer = buffer[found.end():]
        # The first header of the file's part must be this one.
        found = re.match(delimiter + rb'Content-Disposition: (.*?); name="(.*?)"; filename="([^"]+)"(.*?)\r?\n\r?\n', buffer, re.S)
        if not found:
            return False
        self._is_form_data(found.group(1))
        if found.group(2) != b'filename':
            raise PveError(500, "wrong field name '{0}' for file upload, expected 'filename'".format(found.group(2).decode()))
        self.filename = found.group(3).decode().strip()
        self.buffer = buffer[found.end():]
        return True

    @staticmethod
    def _is_form_data(disposition):
        if disposition != b'form-data':
            raise PveError(500, "wrong Content-Disposition '{0}' in multipart, expected 'form-data'".format(disposition.decode()))

    def feed(self, data):
        """Takes more of the body, and gives what of it is the file's."""
        self.buffer += data
        if self.filename is None and not self._take_fields():
            if len(self.buffer) > HEAD_LIMIT:
                raise PveError(500, 'upload failed')
            return b''
        end = self.buffer.find(b'--' + self.boundary + b'--')
        if end >= 0:
            out, self.buffer, self.closed = self.buffer[:end], b'', True
            return re.sub(rb'\r?\n$', b'', out)
        keep = len(self.boundary) + 8
        out, self.buffer = self.buffer[:-keep], self.buffer[-keep:]
        return out
