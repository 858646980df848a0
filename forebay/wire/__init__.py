"""What the parts say to each other: protobuf messages and gRPC services, generated from proto/."""
