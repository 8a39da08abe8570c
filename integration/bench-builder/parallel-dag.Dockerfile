FROM bench-base AS base
COPY app.txt /
FROM base AS s1
RUN sleep 2; echo 1 > /out1
FROM base AS s2
RUN sleep 2; echo 2 > /out2
FROM base AS s3
RUN sleep 2; echo 3 > /out3
FROM base AS s4
RUN sleep 2; echo 4 > /out4
FROM base AS s5
RUN sleep 2; echo 5 > /out5
FROM base AS s6
RUN sleep 2; echo 6 > /out6
FROM base AS s7
RUN sleep 2; echo 7 > /out7
FROM base AS s8
RUN sleep 2; echo 8 > /out8
FROM base AS unused
RUN sleep 30
FROM base
COPY --from=s1 /out1 /
COPY --from=s2 /out2 /
COPY --from=s3 /out3 /
COPY --from=s4 /out4 /
COPY --from=s5 /out5 /
COPY --from=s6 /out6 /
COPY --from=s7 /out7 /
COPY --from=s8 /out8 /
