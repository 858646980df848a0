"""The scheduler in virtual time: engines that are a model, workloads that are drawn, and the product's own core between.

| module | idea |
|---|---|
| `jobs`, `workloads`, `lengths`, `trace_files` | what is asked, by whom and when |
| `engines`, `prefix_cache` | what an engine does with it, step by step |
| `discipline` | the seam: whoever decides whose turn it is and where it goes |
| `turn_rules`, `routing_rules` | other schedulers' rules, to compare with |
| `product` | ours, the classes that run in the service |
| `running` | the loop: events in order of time |
| `service_record`, `measures` | who was served how much, and what that says |
| `comparing` | many seeds and disciplines, on all cores |
| `tables`, `plots`, `cli` | telling it |

Numbers from here compare disciplines with each other. They are not those of a GPU."""
