"""The unmodified Temporal client for Python: connects, and asks what a worker asks before it polls.

    connect.py ADDRESS NAMESPACE [KEY]

Prints one line of JSON: what it learned, or the error it got.
"""

import asyncio
import json
import sys

from temporalio.api.workflowservice import v1 as api
from temporalio.client import Client
from temporalio.service import RPCError


async def main(address, namespace, key=None):
    metadata = {"authorization": f"Bearer {key}"} if key else {}
    try:
        # Compressed by default, and GetSystemInfo is its first call.
        client = await Client.connect(address, namespace=namespace, rpc_metadata=metadata)
        service = client.workflow_service
        described = await service.describe_namespace(api.DescribeNamespaceRequest(namespace=namespace))
        cluster = await service.get_cluster_info(api.GetClusterInfoRequest())
        said = {
            "healthy": await client.service_client.check_health(),
            "name": described.namespace_info.name,
            "id": described.namespace_info.id,
            "description": described.namespace_info.description,
            "retention_s": described.config.workflow_execution_retention_ttl.seconds,
            "server_version": cluster.server_version,
        }
        try:
            await service.deprecate_namespace(api.DeprecateNamespaceRequest(namespace=namespace))
        except RPCError as error:
            said["deprecate"] = [error.status.name, error.message]
    except RPCError as error:
        said = {"error": [error.status.name, error.message]}
    except RuntimeError as error:
        said = {"error": ["CONNECT", str(error)]}
    print(json.dumps(said))


asyncio.run(main(*sys.argv[1:]))
