"""What does not write texts: the page, the list of models, health and metrics."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from terraformer.serving.errors import unavailable
from terraformer.serving.service import Service

_PAGE = Path(__file__).with_name('page.html')


def make_router(service: Service) -> APIRouter:
  """Returns the routes."""
  router = APIRouter()
  page = _PAGE.read_bytes()
  page_headers = {'Content-Security-Policy': _policy(page.decode()), 'Cache-Control': 'no-cache'}

  @router.get('/', include_in_schema=False)
  async def home():
    return Response(page, media_type='text/html; charset=utf-8', headers=page_headers)

  @router.get('/v1/models', tags=['OpenAI'], summary='List the model')
  async def models():
    return {'object': 'list', 'data': [_model(service)]}

  @router.get('/v1/models/{name}', tags=['OpenAI'], summary='Describe the model')
  async def model(name: str):
    service.require_model(name)
    return _model(service)

  @router.get('/healthz', tags=['Operation'], summary='Whether the process answers')
  async def health():
    return {'status': 'ok'}

  @router.get('/readyz', tags=['Operation'], summary='Whether the model answers')
  async def ready():
    if service.is_ending:
      raise unavailable('the server is about to end', 'shutting_down')
    if not service.is_ready:
      raise unavailable('the model is not ready yet', 'not_ready')
    return {'status': 'ready'}

  @router.get('/metrics', tags=['Operation'], summary='Metrics for Prometheus')
  async def metrics():
    return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)

  return router


def _model(service: Service) -> dict[str, Any]:
  bundle, settings = service.bundle, service.settings
  return {
    'id': settings.name,
    'object': 'model',
    'created': service.created,
    'owned_by': 'terraformer',
    'tasks': list(settings.tasks),
    'reads': 'beginning' if bundle.continues else 'source',
    'max_input_tokens': bundle.inputs_length or bundle.targets_length,
    'max_tokens': settings.max_tokens or bundle.targets_length,
    'max_bytes': settings.body_bytes,
  }


def _policy(page: str) -> str:
  """Returns a policy by which a browser runs this page's own script and style, and connects to this server alone."""
  rules = ["default-src 'none'", "connect-src 'self'", 'img-src data:', "base-uri 'none'", "form-action 'none'"]
  for rule, tag in (('script-src', 'script'), ('style-src', 'style')):
    inline = re.findall(rf'<{tag}>(.*?)</{tag}>', page, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in inline]
    rules.append(f'{rule} {" ".join(hashes)}')
  return '; '.join([*rules, "frame-ancestors 'none'"])
