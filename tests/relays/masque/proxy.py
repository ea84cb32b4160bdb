#!/usr/bin/env python3
"""aioquic as a MASQUE proxy on loopback. Says `port N`, and serves until it is ended."""
import argparse
import asyncio

from aioquic.asyncio import serve

from peers import Proxy, configuration


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--certificate", required=True, help="what to show to clients (PEM)")
    parser.add_argument("--key", required=True, help="its key (PEM)")
    arguments = parser.parse_args()
    config = configuration(False, arguments.certificate, arguments.key)
    server = await serve(arguments.listen, arguments.port, configuration=config, create_protocol=Proxy)
    print("port", server._transport.get_extra_info("sockname")[1], flush=True)
    await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(main())
