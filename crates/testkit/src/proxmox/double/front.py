"""What every request passes first: the log, the check against the official schema, and the faults that a test asked for."""

import asyncio
import re
import time
import urllib.parse

from aiohttp import web
from fakepve import schema as pve_schema
from fakepve.model import PveError
from fakepve.server import API, error, params

# pveproxy's limit for what is no upload.
MAX_POST = 512 * 1024


class Cut(Exception):
    """The connection is to be cut."""


class Front(object):
    """Mixin of the cluster: its outermost layer."""

    @web.middleware
    async def _extjs(self, request, handler):
        entry = {'method': request.method, 'path': request.path, 'query': request.query_string, 'received': 0,
                 'status': 0, 'at': time.time(), 'params': {}}
        self.calls.append(entry)
        request['entry'] = entry
        try:
            response = await self._pass(request, handler)
        except Cut:
            request.transport.abort()
            raise ConnectionResetError('cut') from None
        except web.HTTPException as refused:
            entry['status'] = refused.status
            raise
        entry['status'] = response.status
        return response

    async def _pass(self, request, handler):
        rule = self._rule_for(request)
        if rule and rule.get('cut_after') is not None and not self.is_upload(request):
            raise Cut
        if rule and rule.get('status'):
            await self._swallow(request)
            return error(rule['status'], rule['message'])
        if rule and rule.get('delay'):
            await asyncio.sleep(rule['delay'])
        request['cut_after'] = rule.get('cut_after') if rule else None
        if request.headers.get('Transfer-Encoding', '').lower() == 'chunked':
            return self._closing(error(501, 'chunked transfer encoding not supported'))
        length = int(request.headers.get('Content-Length') or 0)
        if length > MAX_POST and not self.is_upload(request):
            return self._closing(error(501, 'for data too large'))
        if length and request.method not in ('PUT', 'POST'):
            self.violations.append('{0} {1}: a body, which Proxmox VE refuses'.format(request.method, request.path))
            return self._closing(error(501, "Unexpected content for method '{0}'".format(request.method)))
        self.scan()
        return await super()._extjs(request, handler)

    @staticmethod
    async def _swallow(request):
        """Reads the body of a request that is refused, so that the client sees the answer."""
        if int(request.headers.get('Content-Length') or 0) <= MAX_POST:
            await request.read()

    def _rule_for(self, request):
        for rule in self.rules:
            if rule['method'] in ('', request.method) and rule['path'] in request.path:
                if rule['times'] is not None:
                    rule['times'] -= 1
                    if rule['times'] <= 0:
                        self.rules.remove(rule)
                return rule
        return None

    @staticmethod
    def is_upload(request):
        """Whether the body is a file, which nobody holds in memory."""
        return request.method == 'POST' and request.path.endswith('/upload')

    async def _read_body(self, request):
        if self.is_upload(request):
            return b''
        body = await super()._read_body(request)
        request['entry']['received'] = len(body)
        return body

    async def _answer(self, request, handler, generic, path_node):
        if not self.is_upload(request):
            values = await params(request)
            request['entry']['params'] = {k: v for k, v in values.items() if k not in ('password', 'ticket')}
            try:
                self.check_schema(request, values)
                self.profile.check(request.path, values)
            except PveError as refused:
                return error(refused.status, refused.message, refused.errors)
        return await super()._answer(request, handler, generic, path_node)

    def check_schema(self, request, values):
        """Notes where a request is not one of the official API."""
        # A volume's name may have slashes, which the API takes as they are.
        content = re.fullmatch(API + r'(/nodes/[^/]+/storage/[^/]+/content)/(.+)', urllib.parse.unquote(request.path))
        match = pve_schema.load().match(content.group(1) + '/x') if content else self.resolve(request, API)
        where = '{0} {1}'.format(request.method, urllib.parse.unquote(request.path))
        info = match and match.methods.get(request.method)
        if not info:
            self.violations.append('{0}: there is no such call'.format(where))
            return
        spec = info.get('parameters') or {}
        declared = spec.get('properties', {})
        values = dict(values, **{k: v for k, v in match.params.items() if k in declared})
        _, errors = pve_schema.validate(spec, values)
        self.violations += ['{0}: {1}: {2}'.format(where, name, why) for name, why in sorted(errors.items())]
