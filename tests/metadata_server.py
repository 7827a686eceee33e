"""The metadata server of a Cloud TPU VM, as far as JAX asks it, on loopback."""

import contextlib
import http.server
import threading


@contextlib.contextmanager
def serving(number, addresses):
  """Serves; yields (address for GCE_METADATA_IP, list that gets the names asked for).

  Args:
    number: of this host.
    addresses: of all hosts of the slice, in order.
  """
  attributes = {
    "agent-worker-number": str(number),
    "worker-network-endpoints": ",".join(f"unknown:unknown:{address}" for address in addresses),
    "tpu-env": "ACCELERATOR_TYPE: 'v5litepod-8'\n",
  }
  asked = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      name = self.path.rpartition("/")[2]
      asked.append(name)
      self.send_response(200 if name in attributes else 404)
      self.end_headers()
      self.wfile.write(attributes.get(name, "").encode())

    def log_message(self, *_):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield f"127.0.0.1:{server.server_port}", asked
  finally:
    server.shutdown()
    server.server_close()
