"""Version 1 of what the parts say to each other: protobuf messages and gRPC services, generated from proto/."""
