"""The web application: all routes of the server."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from terraformer.serving import completions, errors, pages, summaries
from terraformer.serving.bodies import ChatRequest, CompletionRequest
from terraformer.serving.middleware import Gate, Record
from terraformer.serving.service import Service

_DESCRIPTION = (
  'Texts by a sparse Transformer, by the API of OpenAI as far as this model has it; a parameter that it has not is '
  'refused by name. Errors have the usual shape.'
)
_ERRORS = {
  400: 'The request is wrong; the message says how.',
  401: 'The API key is wrong or missing.',
  413: 'The body is too long.',
  429: 'The queue is full; try again after the time in Retry-After.',
  503: 'The server is starting or ending, or the time was up.',
}


def make_app(service: Service) -> FastAPI:
  """Returns the application of a service."""
  app = FastAPIOffline(  # with the assets of /docs, so that nothing is loaded from elsewhere
    docs_url='/docs',
    redoc_url=None,
    static_url='/docs-assets',
    title=f'Terraformer: {service.settings.name}',
    description=_DESCRIPTION,
    version='1',
    responses={status: {'model': errors.ErrorBody, 'description': what} for status, what in _ERRORS.items()},
    swagger_ui_parameters={'defaultModelsExpandDepth': 0, 'validatorUrl': None},
  )
  for router in (completions.make_router(service), summaries.make_router(service), pages.make_router(service)):
    app.include_router(router)
  known = sorted({*CompletionRequest.model_fields, *ChatRequest.model_fields})

  async def on_invalid(_: Request, error: RequestValidationError) -> Response:
    return errors.invalid(error.errors(), known).response()

  def described() -> dict[str, Any]:
    document = documented()
    for path in document['paths'].values():
      for operation in path.values():
        operation['responses'].pop('422', None)  # the framework's own status of a bad body, which `on_invalid` changes
    return document

  documented, app.openapi = app.openapi, described
  app.add_exception_handler(RequestValidationError, on_invalid)
  app.add_exception_handler(errors.ApiError, errors.on_api_error)
  app.add_exception_handler(HTTPException, errors.on_http_error)
  app.add_exception_handler(Exception, errors.on_failure)
  app.add_middleware(Gate, service=service)
  app.add_middleware(Record, service=service)  # around the gate
  return app
