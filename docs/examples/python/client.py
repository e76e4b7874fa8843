#!/usr/bin/env python3
"""A client of portlayer made from the protos: runs one task and follows its events.

    python3 -m venv venv && venv/bin/pip install grpcio grpcio-tools googleapis-common-protos
    venv/bin/python -m grpc_tools.protoc -I proto --python_out=out --grpc_python_out=out proto/portlayer/v1/*.proto
    PYTHONPATH=out venv/bin/python docs/examples/python/client.py /run/portlayer/portlayer.sock image://images/busybox
"""

import sys

import grpc
from google.rpc import error_details_pb2, status_pb2
from portlayer.v1 import (
    elements_pb2,
    elements_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    specs_pb2,
    tasks_pb2,
    tasks_pb2_grpc,
)

TASK, EXECUTOR = "task://tasks/python", "executor://executors/python"


def refusal(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    """The machine-readable part of an error: reason, element, field."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info
    raise error


def run(image: str) -> tasks_pb2.RunRequest:
    """One call: make a task and an executor, join image and task, start it."""
    task = specs_pb2.TaskSpec(argv=["/bin/echo", "hello from python"])
    new = elements_pb2.NewElement
    edit = tasks_pb2.Edit
    how = specs_pb2.JoinHow
    return tasks_pb2.RunRequest(
        create=[
            elements_pb2.CreateRequest(element=new(id=TASK, spec=specs_pb2.Spec(task=task))),
            elements_pb2.CreateRequest(
                element=new(id=EXECUTOR, spec=specs_pb2.Spec(executor=specs_pb2.ExecutorSpec()))
            ),
        ],
        executor=EXECUTOR,
        edits=[
            edit(join=edit.Join(id=image, how=how(image=how.Image()))),
            edit(join=edit.Join(id=TASK, how=how(task=how.Task()))),
            edit(bind=edit.Bind()),
        ],
    )


def main(socket: str, image: str) -> None:
    # The authority is not looked at, but grpc would make one of the socket's path that HTTP/2 forbids.
    options = [("grpc.default_authority", "portlayer")]
    with grpc.insecure_channel(f"unix:{socket}", options=options) as channel:
        elements = elements_pb2_grpc.ElementsServiceStub(channel)
        tasks = tasks_pb2_grpc.TasksServiceStub(channel)
        events = events_pb2_grpc.EventsServiceStub(channel)

        try:
            elements.Read(elements_pb2.ReadRequest(id=TASK))
        except grpc.RpcError as error:
            info = refusal(error)
            print("refused", info.reason, info.metadata["element"])

        follow = events.Subscribe(events_pb2.SubscribeRequest(filters=[f"id=={TASK}"]))
        assert next(follow).WhichOneof("part") == "subscribed"
        tasks.Run(run(image))
        exit = tasks.Wait(tasks_pb2.WaitRequest(executor=EXECUTOR, task=TASK)).exit
        print("exited", exit.code)
        logs = tasks.Logs(tasks_pb2.LogsRequest(executor=EXECUTOR, task=TASK))
        print(b"".join(chunk.data for part in logs for chunk in part.chunks).decode(), end="")
        for part in follow:
            for event in part.events.events:
                print("event", event.WhichOneof("change"))
                if event.WhichOneof("change") == "unbound":
                    return


if __name__ == "__main__":
    main(*sys.argv[1:])
