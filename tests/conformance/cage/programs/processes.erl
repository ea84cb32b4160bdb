%% Erlang: processes on eight schedulers, messages, timers, references, random numbers.
-module(processes).
-export([main/0]).

main() ->
    io:format("~p ~p ~p ~p~n", [erlang:system_time(), make_ref(), rand:uniform(1000000000), erlang:system_info(schedulers_online)]),
    Self = self(),
    Pids = [spawn(fun() -> work(Self, N, 40) end) || N <- lists:seq(1, 12)],
    Order = [receive {N, _} -> N end || _ <- lists:seq(1, 12 * 40)],
    io:format("~p ~p~n", [length(Pids), erlang:phash2(Order)]),
    io:format("~w~n", [Order]),
    erlang:send_after(5, self(), late),
    receive late -> io:format("~p~n", [erlang:monotonic_time()]) end,
    io:format("~p ~p ~s~n", [crypto_free(), os:getpid(), os:cmd("echo from a child")]),
    halt(0).

work(_, _, 0) -> ok;
work(To, N, Left) ->
    To ! {N, lists:sum(lists:seq(1, 100 * (N rem 5)))},
    work(To, N, Left - 1).

crypto_free() -> erlang:phash2(erlang:unique_integer()).
